"""Puzzle families, one module each: read, encode, decode, rules, draw, generate."""
