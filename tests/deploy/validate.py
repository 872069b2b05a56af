"""Hold manifests against the schemas of some versions of Kubernetes: `validate.py 1.30,1.31 SCHEMAS FILE…`.

It runs in the environment of `make install-deploy`. SCHEMAS holds those of custom resources. It prints a line
for each object and version: version, file, kind, name, verdict.
"""

import json
import sys
from pathlib import Path

import jsonschema
import kubernetes_validate
import yaml


def verdict(document: dict, version: str, own: dict) -> str:
    """Return "valid", "no schema", or what is wrong."""
    try:
        if document["kind"] in own:
            jsonschema.validate(document, own[document["kind"]])
        else:
            kubernetes_validate.validate(document, version, strict=True)
    except kubernetes_validate.SchemaNotFoundError:
        return "no schema"
    except (kubernetes_validate.ValidationError, jsonschema.ValidationError) as error:
        return f"{'.'.join(map(str, error.path))}: {error.message}".replace("\n", " ")[:500]
    return "valid"


def main(versions: list[str], schemas: Path, paths: list[Path]) -> None:
    """Print the verdict on every object of every file."""
    own = {path.stem: json.loads(path.read_text()) for path in schemas.glob("*.json")}
    for path in paths:
        documents = [each for each in yaml.load_all(path.read_text(), yaml.CSafeLoader) if each]
        for version in versions:
            for document in documents:
                name = document["metadata"]["name"]
                print(version, path.stem, document["kind"], name, verdict(document, version, own), sep="\t")


if __name__ == "__main__":
    main(sys.argv[1].split(","), Path(sys.argv[2]), [Path(each) for each in sys.argv[3:]])
