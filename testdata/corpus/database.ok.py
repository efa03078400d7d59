import sqlite3

db = sqlite3.connect("stock.db")
db.execute("create table stock (item text primary key, n integer check (n >= 0))")
db.executemany("insert into stock values (?, ?)", [("apple", 3), ("pear", 0)])
db.commit()
try:
    with db:
        db.execute("update stock set n = n - 1")
except sqlite3.IntegrityError:
    pass
assert db.execute("select * from stock order by item").fetchall() == [("apple", 3), ("pear", 0)]
