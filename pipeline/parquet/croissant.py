"""croissant.json: the export as MLCommons' Croissant 1.1 describes data sets, with its fields for responsible AI."""

from __future__ import annotations

import json
from typing import Any

from pipeline.parquet.about import About
from pipeline.parquet.images import COLUMNS, FOLDER

CROISSANT = "croissant.json"
_SPEC = "http://mlcommons.org/croissant/"
_CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    **{name: f"cr:{name}" for name in ("arrayShape", "citeAs", "column", "containedIn")},
    "conformsTo": "dct:conformsTo",
    "cr": _SPEC,
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "description": {"@container": "@language"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    **{name: f"cr:{name}" for name in ("equivalentProperty", "extract", "field", "fileObject", "fileProperty")},
    **{name: f"cr:{name}" for name in ("fileSet", "format", "includes", "isArray", "isLiveDataset", "jsonPath", "key")},
    **{name: f"cr:{name}" for name in ("md5", "parentField", "path", "recordSet", "references", "regex", "repeated")},
    "name": {"@container": "@language"},
    "rai": f"{_SPEC}RAI/",
    **{name: f"cr:{name}" for name in ("replace", "samplingRate", "separator", "source", "subField", "transform")},
    "sc": "https://schema.org/",
}
"""The one that the specification gives, written out: nothing has to be fetched to read it."""
_FILES, _RECORDS, _SPLITS, _CLASSES = "parquet", "samples", "splits", "classes"
_TYPES = {"image": "sc:ImageObject", "label": "sc:Integer", "writer": "sc:Text", "sample_id": "sc:Text"}


def croissant_of(about: About) -> str:
    return json.dumps(_metadata(about), ensure_ascii=False, indent=1) + "\n"


def _metadata(about: About) -> dict[str, Any]:
    origin, card = about.origin, about.card
    fields = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "name": about.title,
        "description": about.description,
        "conformsTo": [f"{_SPEC}1.1", f"{_SPEC}RAI/1.0"],
        "license": origin and origin.license,
        "url": origin and origin.homepage,
        "citeAs": origin and origin.citation,
        "version": card.format_version,
        "inLanguage": "zh",
        "keywords": ["handwriting", "Chinese", "character recognition"],
        "rai:dataCollection": about.collection,
        "rai:dataPreprocessingProtocol": list(about.steps),
        "rai:dataCollectionMissingData": "; ".join(
            f"{split}: {n:,} records {reason} ({meaning})" for split, reason, n, meaning in about.lost
        ),
        "rai:dataAnnotationProtocol": "Labels are those of the archives: each record's own character code.",
        "rai:dataUseCases": "Training and testing recognisers of single handwritten Chinese characters.",
        "rai:dataLimitations": list(about.limits()),
        "rai:dataBiases": "Writers and characters are those that the archives hold; nothing was balanced.",
        "rai:personalSensitiveInformation": about.personal,
        "rai:dataReleaseMaintenancePlan": "None: the same archives give the same bytes again.",
        "distribution": _distribution(about),
        "recordSet": [_splits(about), _records(about), _classes(about)],
    }
    return {name: value for name, value in fields.items() if value}


def _distribution(about: About) -> list[dict[str, Any]]:
    parquet = "application/x-parquet"
    every = {
        "@type": "cr:FileSet",
        "@id": _FILES,
        "name": _FILES,
        "description": "The images of every split.",
        "encodingFormat": parquet,
        "includes": f"{FOLDER}/*.parquet",
    }
    files = [
        {
            "@type": "cr:FileObject",
            "@id": file.name,
            "name": file.name,
            "contentUrl": file.name,
            "contentSize": f"{file.bytes} B",
            "encodingFormat": parquet,
            "sha256": file.sha256,
        }
        for file in about.files
    ]
    return [every, *files]


def _splits(about: About) -> dict[str, Any]:
    return {
        "@type": "cr:RecordSet",
        "@id": _SPLITS,
        "name": _SPLITS,
        "dataType": "cr:Split",
        "key": {"@id": f"{_SPLITS}/split"},
        "field": [{"@type": "cr:Field", "@id": f"{_SPLITS}/split", "name": "split", "dataType": "sc:Text"}],
        "data": [{f"{_SPLITS}/split": name} for name in about.splits],
    }


def _classes(about: About) -> dict[str, Any]:
    # No field refers to it: mlcroissant would join, and then filter every record of a split away.
    field = {"@type": "cr:Field"}
    return {
        "@type": "cr:RecordSet",
        "@id": _CLASSES,
        "name": _CLASSES,
        "description": "the character of each label",
        "dataType": "sc:Enumeration",
        "key": {"@id": f"{_CLASSES}/label"},
        "field": [
            {**field, "@id": f"{_CLASSES}/label", "name": "label", "dataType": "sc:Integer"},
            {**field, "@id": f"{_CLASSES}/name", "name": "name", "dataType": "sc:Text"},
        ],
        "data": [
            {f"{_CLASSES}/label": label, f"{_CLASSES}/name": character}
            for label, character in enumerate(about.classes.characters)
        ],
    }


def _records(about: About) -> dict[str, Any]:
    split = {
        "@type": "cr:Field",
        "@id": f"{_RECORDS}/split",
        "name": "split",
        "description": "as its file is named",
        "dataType": "sc:Text",
        "source": {
            "fileSet": {"@id": _FILES},
            "extract": {"fileProperty": "fullpath"},
            # A reader that joins puts what it refers to, the bare name, through the same.
            "transform": {"regex": f"(?:{FOLDER}/)?({'|'.join(about.splits)})(?:-.*)?$"},
        },
        "references": {"field": {"@id": f"{_SPLITS}/split"}},
    }
    columns = []
    for column, meaning in COLUMNS.items():
        source: dict[str, Any] = {"fileSet": {"@id": _FILES}, "extract": {"column": column}}
        if column == "image":
            source["transform"] = {"jsonPath": "bytes"}
        columns.append(
            {
                "@type": "cr:Field",
                "@id": f"{_RECORDS}/{column}",
                "name": column,
                "description": meaning,
                "dataType": _TYPES[column],
                "source": source,
            }
        )
    return {"@type": "cr:RecordSet", "@id": _RECORDS, "name": _RECORDS, "field": [split, *columns]}
