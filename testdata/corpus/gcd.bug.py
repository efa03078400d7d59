def gcd(a, b):
    while b > 1:
        a, b = b, a % b
    return a


assert [gcd(12, 18), gcd(7, 5), gcd(0, 9)] == [6, 1, 9]
