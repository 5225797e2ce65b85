"""The word count as a plain loop over the file: what a person would write without streamkit."""

import sys
from collections import Counter

counts: Counter[str] = Counter()
with open(sys.argv[1], encoding="utf-8") as file:
    for line in file:
        counts.update(line.lower().split())
print(len(counts), sum(counts.values()), sum(count * count for count in counts.values()))
