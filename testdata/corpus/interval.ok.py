def merge(spans):
    out = []
    for lo, hi in sorted(spans):
        if out and lo <= out[-1][1]:
            out[-1] = (out[-1][0], max(hi, out[-1][1]))
        else:
            out.append((lo, hi))
    return out


assert merge([(5, 8), (1, 3), (2, 6), (10, 11)]) == [(1, 8), (10, 11)]
assert merge([]) == []
assert merge([(1, 9), (2, 3)]) == [(1, 9)]
