package e2e_test

import (
	"context"

	"outpost.run/outpost/client"
	"outpost.run/outpost/sandbox"
)

var listStateful = client.ListOptions{Mode: sandbox.Stateful}

// createExecDelete makes, uses and removes sandboxes of both modes until the server or ctx ends.
func createExecDelete(ctx context.Context, s *server) {
	code := "open('x','w').write('y'*100000); print(1)"
	for n := 0; ctx.Err() == nil && s.running(); n++ {
		r := sandbox.CreateRequest{Language: new("python")}
		if n%2 == 0 {
			r.Mode = new("stateful")
		}
		made, err := s.Create(ctx, r)
		if err != nil {
			continue
		}
		_, _ = s.Exec(ctx, made.ID, sandbox.ExecRequest{Code: &code})
		_, _ = s.Execute(ctx, sandbox.ExecuteRequest{Language: r.Language, Code: &code})
		_ = s.Delete(ctx, made.ID)
	}
}
