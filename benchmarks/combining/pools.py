"""What is drawn from: words, places, queries, environments; paths are of the box."""

from __future__ import annotations

from combining.box import LIST

HTTP, NOWHERE = "http://127.0.0.1:9", "127.0.0.1:9"
_LONG = "long" * 70

ABSURD = (
    "", " ", "nonsense", "-1", "0", "1e400", "nan", "-inf", "99999999999999999999999", "½", "٣", "--", "None", "a=b",
    "\N{PILE OF POO}", "x" * 5000, b"\xff\xfe", "a\nb", "%s%n{0}", "~", "*", "[red]x[/red]",
)  # fmt: skip
INTEGERS = ("0", "1", "2", "3", "7", "16", "64", " 5 ", "1_0", "+2", "0x10", "1.0")
FLOATS = ("0", "1", "0.5", "0.01", "0.999", "1e-300", "-0.0", "1e-9", "inf", "nan", ".5", "1e3")
GOOD_INPUTS = ("in/good", "in/good2", "in/test", "in/good.zip", "in/good/1001-c.gnt", "in/good/*.gnt")
INPUTS = (
    *GOOD_INPUTS * 6, "in/HWDB [2020]/*.gnt", "in/HWDB [2020]", "in/mixed", "in/both", "in/loops", "in/**", "in",
    "in/good/", "in/empty folder", "in/folder.gnt", "in/cut.gnt", "in/random.gnt", "in/rar.gnt", "in/zip.gnt",
    "in/empty.gnt", "in/empty.zip", "in/none.zip", "in/html.zip", "in/cut.zip", "in/twice.zip", "in/outside.zip",
    "in/upper.zip", "in/gbk.zip", "in/gbk.zip", "in/bomb.zip", "in/tiny.gnt", "in/with space.gnt", "in/new\nline.gnt",
    "in/-dash.gnt", "in/train=2.gnt", f"in/{'long' * 60}.gnt", b"in/\xff\xfe.gnt", "in/fifo.gnt", "in/dangling",
    "in/characters.txt", "in/absent.gnt", "~/good", "sets/raw", "documents", "/dev/null", "/dev/zero", "",
    "https://host/a.zip", "s3://bucket/a", "file:///tmp", "./in/../in/good", "in/mutated", "in/mutated", "in/mutated",
    "in/mutated", "in/good/1001-c.gnt/x",
)  # fmt: skip
PICTURES = ("in/picture.png", "in/picture.jpg", "in/torn.png", "in/good/1001-c.gnt", "in/test")
SETS = (
    *("sets/raw",) * 14, "sets/png", "sets/png", "sets/old", "sets/other", "sets/unfinished",
    *("sets/raw-spoilt",) * 6, "out/link", "out/loop", "out/empty", "documents", "in/cut.gnt", "absent", "",
    "sets/raw/", "./sets/../sets/raw", "~/good", ".", "/dev/null", "s3://bucket/set", "ftp://host/x", "sets/kept",
)  # fmt: skip
RUNS = (
    *("runs/run",) * 12, *("runs/run-spoilt",) * 4, "runs/unfinished", "sets/raw", "documents", "absent",
    "in/cut.gnt", "~/runs", "", "runs",
)  # fmt: skip
OUTPUTS = (
    *("out/new",) * 45, "out/empty", "out/empty", "sets/raw", "sets/other", *("sets/unfinished",) * 3,
    "sets/unfinished, with notes", "sets/kept", "runs/run", "runs/unfinished", "documents", "documents/letter.txt",
    "documents/letter.txt/x", "in/good", "in", ".", "..", "~/x", "~/documents", "~nobody/x", "out/link",
    "out/dangling", "out/loop", "out/locked/x", "out/locked", "out/odd [dir]", "out/deep/er/still", "out/new/",
    "out/with space", "out/new\nline", b"out/\xff", f"out/{_LONG}", "out/训练", "out/" + "/".join(["deep"] * 900), "-",
    "/dev/null", "/dev/full", "/proc/x", "/", "", "s3://bucket/new", "gs://bucket/new", "file:///tmp/x",
    "https://host/x",
)  # fmt: skip
FILES = (
    *("out/new{}",) * 12, "out/report.html", "documents/report.html", "documents/sheet.png", "documents/notes.json",
    "documents/letter.txt", "documents", "documents/thesis", "sets/raw/classes.txt", "sets/raw/dataset.json",
    "out/new", "out/", "runs/run/config.json", "out/locked/x{}", "out/link", "out/dangling", "~/x{}", "out/deep/x{}",
    "/dev/null", "/dev/full", "", "s3://bucket/x{}", "out/\N{PILE OF POO}{}", b"out/\xff{}", "runs/run/saved_model",
)  # fmt: skip
"""The name that a command wants ends in what stands for {}."""
QUERIES = (
    "SELECT count(*) FROM manifest", "SELECT * FROM manifest", "SELECT * FROM manifest LIMIT 0", "SELEC", "", ";",
    "--", "SELECT 1; SELECT 2", "DROP VIEW manifest", "COPY manifest TO 'documents/letter.txt'",
    "SELECT '\N{PILE OF POO}\n\t'", "COPY (SELECT 1) TO 'sets/raw/classes.txt'",
    "SELECT * FROM 'documents/letter.txt'", "SELECT 1/0, NULL, [1, 2], {'a': 1}", "CREATE TABLE t AS SELECT 1",
    "ATTACH 'out/new.db'", "EXPORT DATABASE 'documents'", "SET memory_limit='1KB'",
    "SELECT char, writer, count(*) FROM manifest GROUP BY ALL ORDER BY ALL", "SELECT absent FROM manifest",
    "SELECT 1e400::DOUBLE, 'nan'::DOUBLE, now(), uuid(), 'a'::BLOB, INTERVAL 1 DAY", "PRAGMA database_list",
    "\N{BOM}SELECT 1", "SELECT unnest(range(3000))", "LOAD httpfs", "SELECT repeat('x', 10000)",
)  # fmt: skip
ENDLESS = "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t) SELECT count(*) FROM t"
SAMPLE_IDS = (
    "train/1001-c.gnt/0", "train/1001-c.gnt/3", "test/1241-c.gnt/1", "train/1001-c.gnt/999", "nonsense", "a/b/c", "/",
    "",
)  # fmt: skip
BEAM = (
    "--direct_num_workers=1", "--direct_num_workers=2", "--direct_num_workers=5", "--direct_num_workers=x",
    "--streaming", "--direct_num_workers=-1", "--direct_num_workers", "--direct_running_mode=in_memory",
    "--direct_running_mode=bogus", "--direct_running_mode=multi_threading", "--temp_location=out/temp",
    "--save_main_session", "--nonsense", "--nonsense=1", "--job_name=ÄÖ", "--experiments=x",
    "--sdk_worker_parallelism=x", "--setup_file=absent", "-x", "stray", "--help", "--job_endpoint=127.0.0.1:9",
    "--type_check_additional=all", "--environment_type=LOOPBACK",
)  # fmt: skip
ENVIRONMENTS: tuple[dict[str, str | None], ...] = (
    {"http_proxy": HTTP}, {"http_proxy": HTTP, "https_proxy": HTTP, "grpc_proxy": HTTP, "all_proxy": HTTP},
    {"HTTP_PROXY": HTTP, "no_proxy": ""}, {"TMPDIR": "tmp/" + "long" * 25}, {"TMPDIR": "absent"},
    {"TMPDIR": "out/locked"}, {"TMPDIR": "documents/letter.txt"}, {"TMPDIR": "out/odd [dir]"}, {"TMPDIR": ""},
    {"PYTHONIOENCODING": "latin-1"}, {"PYTHONIOENCODING": "ascii"}, {"PYTHONIOENCODING": "utf-16"},
    {"LC_ALL": "C", "LANG": "C"}, {"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
    {"LC_ALL": "xx_YY.UTF-8"}, {"HOME": None}, {"HOME": "/absent"}, {"HOME": ""}, {"HOME": "out/locked"},
    {"KERAS_BACKEND": "torch"}, {"KERAS_BACKEND": "nonsense"}, {"TF_CONFIG": "{'cluster': {}}"}, {"TF_CONFIG": "[]"},
    {"TF_CONFIG": "{}"}, {"TF_CONFIG": '{"cluster": 7}'},
    {"TF_CONFIG": '{"cluster": {"worker": ["127.0.0.1:9", "127.0.0.1:10"]}, "task": {"type": "worker", "index": 0}}'},
    {"TF_CONFIG": '{"cluster": {"worker": ["127.0.0.1:34567"]}, "task": {"type": "worker", "index": 5}}'},
    {"TF_CONFIG": '{"cluster": {"worker": ["0.0.0.0:34568", "0.0.0.0:9"]}, "task": {"type": "worker", "index": 0}}'},
    {"TF_CONFIG": '{"cluster": {"worker": ["host:1"]}, "task": {"type": "ps", "index": "x"}}'},
    {"PYTHONOPTIMIZE": "2"}, {"NUMBA_DISABLE_JIT": "1"}, {"NUMBA_CACHE_DIR": "out/locked"}, {"OMP_NUM_THREADS": "0"},
    {"COLUMNS": "0"}, {"COLUMNS": "-5"}, {"COLUMNS": "20"}, {"TERM": "dumb"}, {"FORCE_COLOR": "1"}, {"NO_COLOR": "1"},
    {"TZ": "Nowhere/Land"}, {"PYTHONUNBUFFERED": "1"}, {"CUDA_VISIBLE_DEVICES": "7"}, {"AWS_PROFILE": "absent"},
    {"MPLBACKEND": "Qt5Agg"}, {"AWS_ENDPOINT_URL": HTTP, "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"},
    {"PATH": ""}, {"USER": ""},
)  # fmt: skip
SMALL = {
    "draw": "--port 0",
    "sample": "--writers 2 --characters 3",
    "train": "--arch vgg11 --width 0.0625 --global_batch 8 --steps 3",
    "benchmark": "--stages input --seconds 0.05 --arch vgg11 --width 0.0625 --replica_batch 2",
}
"""First, so that a trial is short; flags that are drawn come later and prevail."""
BOUNDED: dict[str, tuple[str, ...]] = {
    # Work that is done as asked isn't a hang, and others use this machine.
    "writers": ("1", "2", "5", "0", "301", "-3", "x"), "characters": ("1", "4", "30", "0", "3756", "1e3"),
    "processes": ("1", "2", "4", "0", "-2", "x", "1_0"), "steps": ("1", "2", "0", "-1", "x"),
    "epochs": ("1", "0", "-1", "x"), "width": ("0.03", "0.0625", "0", "-1", "nan", "inf", "1e-9", "x"),
    "arch": ("vgg11", "vgg13", "VGG11", "x"), "dense_width": ("1", "8", "0", "-1"),
    "global_batch": ("1", "2", "7", "0", "-1", "x"), "replicas": ("1", "2", "0", "3", "x"),
    "replica_batch": ("1", "2", "0", "-1"), "seconds": ("0.05", "0", "-1", "nan", "inf", "x"),
    "stages": ("input", "step", "x"),
    "image_size": ("1", "2", "7", "16", "64", "65", "300", "0", "-1", "99999999999", "x"), "xla": ("on", "off"),
    "num_shards": (
        "train=1", "train=3", "test=2", "train=0", "train=-1", "train=100000", "x=1", "train", "=", "train=1=2",
        "train=٣", "validation=4",
    ),
    "runner": (
        "DirectRunner", "directrunner", "BundleBasedDirectRunner", "InteractiveRunner", "DaskRunner", "Nonsense", "",
        "DataflowRunner", "apache_beam.runners.direct.DirectRunner",
    ),
}  # fmt: skip
NAMED: dict[str, tuple[str | bytes, ...]] = {
    "inputs": INPUTS, "against": INPUTS, "data": SETS, "model": RUNS, "save_seen": OUTPUTS, "sql": QUERIES,
    "staging": ("out/staging", "out/staging", "sets/kept", "sets/kept", *OUTPUTS),
    "model_dir": (*OUTPUTS, "runs/unfinished", "runs/run-spoilt"),
    "classes": (LIST, LIST, "in/latin.txt", "in/picture.png", "in", "absent", "/dev/null"),
    "split": ("train", "test", "validation", "nonsense", ""),
    "eval_split": ("train", "test", "validation", "nonsense", ""), "char": ("啊", "阿", "A", ""),
    "writer": ("1001", "1241", "9", ""), "sample_ids": SAMPLE_IDS,
    "endpoint_url": (HTTP, "nonsense", "http://", NOWHERE),
}  # fmt: skip
"""A flag's destination -> its values; others take what suits their type."""
CALM: dict[str, tuple[str, ...]] = {
    "output": ("out/new", "out/new", "out/new", "out/empty", "sets/unfinished"),
    "model_dir": ("out/new", "runs/unfinished"), "data": ("sets/raw", "sets/raw", "sets/png", "sets/old"),
    "model": ("runs/run",), "json": ("out/new.json",),
}  # fmt: skip
"""The same, where what is drawn makes sense."""
