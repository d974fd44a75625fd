"""Write the package, with the tables' contracts, as a zip for spark-submit's --py-files: deploy/zip.py FILE."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path


def write(file: Path, root: Path) -> None:
    """Write the zip of the package under ``root``."""
    package, schemas = root / "metarec_spark", root / "schemas"
    members = {path: path.relative_to(root) for path in package.rglob("*") if path.suffix in (".py", ".j2")}
    members |= {path: Path("metarec_spark/schemas") / path.name for path in schemas.glob("*.json")}
    file.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, name in sorted(members.items()):
            archive.write(path, name)


if __name__ == "__main__":
    write(Path(sys.argv[1]), Path(__file__).parent.parent)
