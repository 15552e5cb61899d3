"""Shows files of the repository in the site, so that one relative link serves both.

A page here links to a file outside of `docs/` as it does on a code host, by `../PATH`, and a page
at the root links to `docs/PAGE.md`. In the site both stand under one root; `mkdocs build --strict`
refuses a link whose file is not there.
"""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

SHOWN = (
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "EXPERIMENTS.md",
    "LICENSE",
    "CITATION.cff",
    "experiments/results/README.md",
    "experiments/results/**/*.png",
    "experiments/results/**/*.gif",
    "experiments/pictures/*.png",
    "ptrm_jax/assets/*/*.png",
    "ptrm_jax/assets/*/README.md",
)
"""Files outside of `docs/` that pages may link to."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the files of `SHOWN` under their path in the repository."""
    root = Path(config.config_file_path).parent
    for pattern in SHOWN:
        for path in sorted(root.glob(pattern)):
            name = path.relative_to(root).as_posix()
            files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Moves the links of a page to the site's one root; lists the modules of `::: PACKAGE.*`."""
    root = Path(config.config_file_path).parent

    def modules(package: re.Match[str]) -> str:
        folder = root.joinpath(*package[1].split("."))
        paths = sorted(path.relative_to(root) for path in folder.rglob("*.py"))
        names = [".".join(path.with_suffix("").parts) for path in paths if path.stem[0] != "_"]
        return "\n".join(f"::: {name}" for name in names)

    if page.file.generated_by is not None:
        return re.sub(r"\]\(docs/", "](", markdown)
    up = "../" * page.file.src_uri.count("/")
    markdown = re.sub(rf"\]\({re.escape(up)}\.\./", f"]({up}", markdown)
    return re.sub(r"^::: (\S+)\.\*$", modules, markdown, flags=re.MULTILINE)
