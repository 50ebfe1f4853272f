from __future__ import annotations

import subprocess
import sys


def test_beam_comes_without_data_frames_which_work_as_before_afterwards() -> None:
    script = """
import gc, sys
from pipeline.convert.lean_imports import lean_imports
gc.disable()
with lean_imports():
    pass
assert not gc.isenabled()
gc.enable()
frozen = gc.get_freeze_count()
with lean_imports():
    pass
assert gc.get_freeze_count() == frozen
with lean_imports(freeze=True):
    assert not gc.isenabled()
    import pipeline.convert.transforms, pipeline.convert.workers
assert gc.isenabled()
assert gc.get_freeze_count() > 100_000
assert not {"pandas", "pymongo", "bson"} & set(sys.modules)
import apache_beam as beam, pandas, pyarrow, pymongo
assert pyarrow.table({"a": [1]}).to_pandas()["a"].sum() == 1
with beam.Pipeline() as root:
    _ = root | beam.Create([1, 2]) | beam.Map(lambda number: number + 1)
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


def test_clients_of_stores_are_executed_once_they_are_used() -> None:
    script = """
import sys
from pipeline.convert.lean_imports import lean_imports
with lean_imports():
    import pipeline.convert.transforms
    from apache_beam.io.aws.clients.s3 import boto3_client
    from apache_beam.internal import http_client
assert not {"botocore", "pyparsing", "charset_normalizer"} & set(sys.modules)
assert boto3_client.boto3.session.Session and "botocore" in sys.modules
import boto3.exceptions, requests
assert requests.exceptions.HTTPError and http_client.httplib2.Http
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


def test_what_is_there_already_stays() -> None:
    script = """
import pandas, sys
from pipeline.convert.lean_imports import lean_imports
with lean_imports():
    import pandas.api.types
assert sys.modules["pandas"] is pandas
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
