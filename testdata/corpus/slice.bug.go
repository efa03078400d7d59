package main

func main() {
	a := make([]int, 3, 10)
	b := append(a, 1)
	c := append(a, 2)
	if b[3] == c[3] {
		panic("two slices share their array")
	}
}
