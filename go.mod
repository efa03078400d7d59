module outpost.run/outpost

go 1.26
