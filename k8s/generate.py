"""Write what the manifests share with the project, so that each has one source: `make manifests`.

- The alert rules of docker/prometheus/rules/ as a PrometheusRule, except those on Prometheus itself, which
  the operator's stack brings.
- The digests of the committed bundles, which are the ones that may be served.

With an argument both are written into that folder instead.
"""

from __future__ import annotations

import sys
from pathlib import Path

from bundle.trusted import list_digests

ROOT = Path(__file__).parent.parent
RULES = ROOT / "docker" / "prometheus" / "rules"
LEFT_OUT = {"monitoring.yml"}
RULE_FILE = ROOT / "k8s" / "components" / "monitoring" / "rules.yaml"
DIGEST_FILE = ROOT / "k8s" / "base" / "trusted-digests"
_HEAD = """# Made of docker/prometheus/rules/ by `make manifests`: change it there.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: octet
spec:
  groups:
"""


def prometheus_rule() -> str:
    """Return the PrometheusRule: the groups of the rule files as they are, with their comments."""
    text = _HEAD
    for path in sorted(RULES.glob("*.yml")):
        if path.name not in LEFT_OUT:
            _, _, groups = path.read_text(encoding="utf-8").partition("\ngroups:\n")
            text += "".join(f"  {line}\n" if line else "\n" for line in groups.splitlines())
    return text


def trusted_digests() -> str:
    """Return the list of the committed bundles, as OCTET_TRUSTED_DIGESTS takes it."""
    digests = list_digests(ROOT / "models")
    return "".join(f"{digest}  {name}\n" for name, digest in sorted(digests.items()))


def main(arguments: list[str]) -> None:
    """Write both files."""
    for path, text in ((RULE_FILE, prometheus_rule()), (DIGEST_FILE, trusted_digests())):
        target = Path(arguments[0]) / path.name if arguments else path
        target.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
