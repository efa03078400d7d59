import concurrent.futures
import subprocess
import threading

lock, total = threading.Lock(), 0


def add(n):
    global total
    with lock:
        total += n


with concurrent.futures.ThreadPoolExecutor(8) as pool:
    list(pool.map(add, range(1000)))
assert total == 499500
assert subprocess.run(["sh", "-c", "echo $((6*7))"], capture_output=True, text=True).stdout == "42\n"
