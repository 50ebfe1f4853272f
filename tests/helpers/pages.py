"""The pages whose code, commands and links tests hold to the program."""

from places import ROOT

GUIDES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/*.md")))
PAGES = (*GUIDES, ROOT / "CHANGELOG.md", *sorted(ROOT.glob("benchmarks/*.md")))
