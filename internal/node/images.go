package node

import (
	"context"

	"outpost.run/outpost/sandbox"
)

// Images implements service.Runtime.
func (n *Node) Images(_ context.Context, _ string, _ bool) ([]sandbox.ImageInfo, error) {
	all, err := n.images.List()
	if err != nil {
		return nil, err
	}
	infos := make([]sandbox.ImageInfo, len(all))
	for i, x := range all {
		infos[i] = sandbox.ImageInfo{
			Image: x.Ref, Digest: x.Digest, SizeBytes: x.SizeBytes, CreatedAt: sandbox.At(x.CreatedAt), UsedAt: sandbox.At(x.UsedAt),
		}
	}
	return infos, nil
}
