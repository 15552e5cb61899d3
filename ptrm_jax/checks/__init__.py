"""Checks of the devices of a host: against its CPU, against themselves, and against the clock."""

from ptrm_jax.checks.agreement import (
    Agreement as Agreement,
    arrangements as arrangements,
    noise as noise,
    parity as parity,
)
from ptrm_jax.checks.host import Settings as Settings, check as check, table as table
from ptrm_jax.checks.speed import Rate as Rate, rate as rate
