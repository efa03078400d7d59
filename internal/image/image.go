// Package image makes and keeps what machines start from: read-only EROFS layers, stored by content.
package image

// Image is one image that is ready: its layers lie on this host.
type Image struct {
	Ref    string   // as asked for, deb:trixie?include=python3
	Digest string   // sha256:… over the layers and the configuration
	Layers []string // EROFS files, the lowest first; absolute paths below the store
	Config Config
}

// Progress is one step of making an image, for people and for ImagePreparing errors.
type Progress struct {
	Ref   string
	Phase string // "waiting", "lists", "resolve", "download", "unpack", "configure", "write"
	Done  int64  // of Total, in the phase's own unit
	Total int64  // 0: unknown
}
