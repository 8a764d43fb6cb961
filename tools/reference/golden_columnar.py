"""Writes tests/golden/columnar/: tables as Parquet and Arrow files, and their rows as JSON lines.

usage: golden_columnar.py    (pyarrow of scripts/arrow.req)
"""

import base64
import datetime
import decimal
import json
import pathlib

import pyarrow as pa
import pyarrow.parquet as pq

FOLDER = pathlib.Path(__file__).parents[2] / "tests" / "golden" / "columnar"

MESSAGE = pa.struct([("role", pa.string()), ("content", pa.string()), ("weight", pa.float64())])
SCHEMA = pa.schema([
    ("instruction", pa.string()),
    ("output", pa.large_string()),
    ("messages", pa.list_(MESSAGE)),
    ("kind", pa.dictionary(pa.int8(), pa.string())),
    ("scores", pa.map_(pa.string(), pa.int64())),
    ("pairs", pa.map_(pa.int32(), pa.bool_())),
    ("vector", pa.list_(pa.float32(), 2)),
    ("tiny", pa.int8()),
    ("huge", pa.uint64()),
    ("ratio", pa.float64()),
    ("flag", pa.bool_()),
    ("bytes", pa.binary()),
    ("day", pa.date32()),
    ("price", pa.decimal128(9, 2)),
    ("nothing", pa.null()),
])


def rows(count: int) -> list[dict]:
    made = []
    for i in range(count):
        made.append({
            "instruction": f"Question {i}: \"déjà vu\" \\ 千里\n\tline {'x' * (i % 5)}",
            "output": None if i % 7 == 3 else f"Answer {i}\x01",
            "messages": None if i % 6 == 5 else [
                {"role": "user", "content": f"m{i}.{k}", "weight": None if k else 0.5 * i} for k in range(i % 3)],
            "kind": ["a", "b", None][i % 3],
            "scores": [("one", i), ("two", None)][: i % 3],
            "pairs": [(1, True), (-2, False)][: i % 3],
            "vector": [1.5 * i, -0.25],
            "tiny": i % 128 - 64,
            "huge": 2**64 - 1 - i,
            "ratio": [0.1, 1.0, -2.5e-300, 1e22][i % 4],
            "flag": [True, False, None][i % 3],
            "bytes": bytes([0, 255, i % 256]),
            "day": datetime.date(2024, 2, 28) + datetime.timedelta(days=i),
            "price": decimal.Decimal(i) / 4 - 1,
            "nothing": None,
        })
    return made


def as_json(row: dict) -> dict:
    out = dict(row)
    out["scores"] = dict(row["scores"])
    out["pairs"] = [list(pair) for pair in row["pairs"]]
    out["bytes"] = base64.b64encode(row["bytes"]).decode()
    out["day"] = str(row["day"])
    out["price"] = str(row["price"].quantize(decimal.Decimal("0.01")))
    return out


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    made = rows(40)
    for row in made:
        row["price"] = row["price"].quantize(decimal.Decimal("0.01"))
    table = pa.Table.from_pylist(made, schema=SCHEMA)
    pq.write_table(table, FOLDER / "rows.parquet", row_group_size=16, compression="zstd", data_page_size=512)
    with pa.OSFile(str(FOLDER / "stream.arrow"), "wb") as sink, pa.ipc.new_stream(sink, SCHEMA) as writer:
        writer.write_table(table, max_chunksize=16)
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    with pa.OSFile(str(FOLDER / "file.arrow"), "wb") as sink, pa.ipc.new_file(sink, SCHEMA, options=options) as writer:
        writer.write_table(table, max_chunksize=16)
    lines = [json.dumps(as_json(row), ensure_ascii=False) for row in made]
    (FOLDER / "rows.jsonl").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
