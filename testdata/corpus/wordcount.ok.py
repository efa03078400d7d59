import collections
import pathlib
import tempfile

text = "the cat saw the dog and the dog saw nothing\n" * 100
with tempfile.TemporaryDirectory() as folder:
    file = pathlib.Path(folder, "text")
    file.write_text(text)
    counts = collections.Counter(file.read_text().split())
assert counts.most_common(2) == [("the", 300), ("saw", 200)], counts
