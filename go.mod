module outpost.run/outpost

go 1.26.0

require (
	github.com/elastic/go-seccomp-bpf v1.6.0
	github.com/erofs/go-erofs v0.3.1
	github.com/klauspost/compress v1.20.3
	github.com/ulikunitz/xz v0.5.17
	golang.org/x/net v0.41.0
	golang.org/x/sys v0.49.0
)
