"""What an annotator's work looks like in each tool: exported records with an answer in them, and new ids where the tool gives its own."""

import csv
import json

SIDES = {"first": ("first", "second"), "second": ("second", "first")}


def in_label_studio(row, said, who):
    name, value = ("choice", {"choices": [said]}) if "first" in row["data"] else ("response", {"text": [said]})
    annotation = {"id": 9, "completed_by": {"id": who, "email": "x@example.org"}, "was_cancelled": False, "lead_time": 12.5, "result": [{"from_name": name, "to_name": "prompt", "type": "x", "value": value}]}
    return row | {"id": 4711, "annotations": [annotation]}


def in_argilla(row, said, who):
    return row | {"_server_id": "other", "responses": {"choice" if "first" in row["fields"] else "response": [{"value": said, "user_id": who}]}}


def in_prodigy(row, said, who):
    answer = {"accept": [said]} if "options" in row else {"response": said}
    return row | answer | {"answer": "accept", "_timestamp": 1700000000, "_annotator_id": who, "_input_hash": 1, "_task_hash": 2}


def in_doccano(row, said, who):
    return row | {"id": 17, "label": [said], "Comments": [], "username": who}


def in_csv(row, said, who):
    return row | {"choice" if "choice" in row else "response": said, "annotator": who}


def in_jsonl(row, said, who):
    answer = dict(zip(("chosen", "rejected"), (row[s] for s in SIDES[said]), strict=True)) if "first" in row and said in SIDES else {"completion": said}
    return row | answer | {"annotator": who}


WORK = {"label-studio": in_label_studio, "argilla": in_argilla, "prodigy": in_prodigy, "doccano": in_doccano, "csv": in_csv, "jsonl": in_jsonl}


def records(path):
    """The records of a file that was exported for a tool."""
    if path.suffix == ".csv":
        with open(path, encoding="utf-8-sig", newline="") as file:
            return list(csv.DictReader(file))
    text = path.read_text()
    return json.loads(text) if text.startswith("[") else [json.loads(line) for line in text.split("\n")[:-1]]


def answered(path, tool, work):
    """Replace the file by the tool's export of this work: (record, what was answered, by whom) for each answer."""
    rows = [WORK[tool](*item) for item in work]
    if path.suffix == ".csv":
        with open(path, "w", encoding="utf-8-sig", newline="", errors="surrogatepass") as file:
            writer = csv.DictWriter(file, rows[0].keys() if rows else ["outlay_id"])
            writer.writeheader()
            writer.writerows(rows)
    else:
        path.write_text(json.dumps(rows) if path.suffix == ".json" else "".join(json.dumps(r) + "\n" for r in rows))
