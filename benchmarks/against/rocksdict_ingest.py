"""Sorted pairs of 16 B and 100 B from a file to a table, and the table into a database: rocksdict alone."""

import sys
from collections import deque
from pathlib import Path

from rocksdict import DBCompressionType, IngestExternalFileOptions, Options, Rdict, SstFileWriter

data, directory = Path(sys.argv[1]).read_bytes(), sys.argv[2]
options = Options(raw_mode=True)
options.create_if_missing(True)
options.set_compression_type(DBCompressionType.lz4())
db = Rdict(f"{directory}/db", options=options, column_families={})
writer = SstFileWriter(options)
writer.open(f"{directory}/table.sst")
starts = range(0, len(data), 116)
keys, values = (data[start : start + 16] for start in starts), (data[start + 16 : start + 116] for start in starts)
deque(map(writer.__setitem__, keys, values), maxlen=0)
writer.finish()
moving = IngestExternalFileOptions()
moving.set_move_files(True)
db.ingest_external_file([f"{directory}/table.sst"], moving)
db.close()
