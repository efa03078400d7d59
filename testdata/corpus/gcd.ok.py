def gcd(a, b):
    while b:
        a, b = b, a % b
    return a


assert [gcd(12, 18), gcd(7, 5), gcd(0, 9), gcd(2**64, 2**40)] == [6, 1, 9, 2**40]
