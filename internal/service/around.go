package service

import (
	"context"

	"outpost.run/outpost/sandbox"
)

// Whoami says what a credential is.
func Whoami(c Caller) sandbox.Whoami { return sandbox.Whoami{Namespace: c.Namespace, Role: c.Role} }

// LanguageInfos are the languages of this server with their default images.
func (s *Service) LanguageInfos() []sandbox.LanguageInfo {
	all := []sandbox.LanguageInfo{}
	for _, l := range s.policy.Languages() {
		all = append(all, sandbox.LanguageInfo{Language: l, Image: s.policy.Images[l]})
	}
	return all
}

// Images are those that are ready and that the namespace may use.
func (s *Service) Images(ctx context.Context, c Caller, namespace string) ([]sandbox.ImageInfo, error) {
	all, err := s.runtime.Images(ctx, namespace, c.Role == sandbox.Operator)
	if all == nil {
		all = []sandbox.ImageInfo{}
	}
	return all, err
}

// Usage is what a namespace has of its quota.
func (s *Service) Usage(namespace string) sandbox.NamespaceUsage {
	sandboxes, execs := s.inuse.of(namespace)
	return sandbox.NamespaceUsage{
		Namespace: namespace,
		Sandboxes: sandbox.UsageOfQuota{Used: sandboxes, Limit: s.policy.Quota.Sandboxes},
		Execs:     sandbox.UsageOfQuota{Used: execs, Limit: s.policy.Quota.ConcurrentExecs},
	}
}

// Patch changes what needs no machine. Errors: NotFound, Invalid.
func (s *Service) Patch(ctx context.Context, namespace, id string, p sandbox.PatchRequest, faults sandbox.Faults) (sandbox.Sandbox, error) {
	l, _, err := s.find(namespace, id)
	if err != nil {
		return sandbox.Sandbox{}, err
	}
	if err := s.policy.Patch(p, faults); err != nil {
		return sandbox.Sandbox{}, err
	}
	l.touch()
	after, err := s.change(ctx, l, "", func(r *sandbox.Sandbox) {
		if p.Name != nil {
			r.Name = *p.Name
		}
		if p.Labels != nil {
			r.Labels = p.Labels
		}
		if p.TTLSecs != nil {
			r.TTLSecs = orNone(*p.TTLSecs)
		}
		if p.IdleTimeoutSecs != nil {
			r.IdleTimeoutSecs = orNone(*p.IdleTimeoutSecs)
		}
	})
	return s.shown(l, after), err
}

func orNone(secs int) *int {
	if secs == 0 {
		return nil
	}
	return &secs
}
