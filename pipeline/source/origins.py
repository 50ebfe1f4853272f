"""Whose handwriting it is, as whoever converts it says: the licence, the citation and the homepage for the card."""

from __future__ import annotations

from schemas.dataset import Origin

_CASIA_CITATION = """\
@inproceedings{liu2011casia,
  author = {Liu, Cheng-Lin and Yin, Fei and Wang, Da-Han and Wang, Qiu-Feng},
  title = {{CASIA} Online and Offline {Chinese} Handwriting Databases},
  booktitle = {International Conference on Document Analysis and Recognition (ICDAR)},
  year = {2011},
  pages = {37--41}
}
@article{liu2013online,
  author = {Liu, Cheng-Lin and Yin, Fei and Wang, Da-Han and Wang, Qiu-Feng},
  title = {Online and offline handwritten {Chinese} character recognition: Benchmarking on new databases},
  journal = {Pattern Recognition},
  volume = {46},
  number = {1},
  year = {2013},
  pages = {155--162}
}
"""
CASIA, DRAWN = "casia", "drawn"
ORIGINS = {
    CASIA: Origin(
        name="CASIA-HWDB",
        license="CASIA's terms: for academic use, on application",
        citation=_CASIA_CITATION,
        homepage="https://nlpr.ia.ac.cn/databases/handwriting/home.html",
    ),
    DRAWN: Origin(name="drawn by hwdb sample"),
}
"""A GNT file doesn't tell who wrote it, nor does its name: a drawn sample's are like CASIA's. So it is asked for."""
