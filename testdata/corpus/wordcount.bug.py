import collections

text = "the cat saw the dog and the dog saw nothing\n" * 100
counts = collections.Counter(text)
assert counts.most_common(1) == [("the", 300)], counts
