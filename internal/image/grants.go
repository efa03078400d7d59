package image

import (
	"errors"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"

	"outpost.run/outpost/sandbox"
)

// Asker is who wants an image.
type Asker struct {
	Namespace string
	Operator  bool // of role operator
	Host      bool // the server's own configuration, or the command line on its host: all is theirs
}

// grant lets namespaces use the host's credentials for what lies below one place of a registry.
type grant struct {
	place      string // HOST/REPOSITORY, or HOST/…/ for all below it
	namespaces []string
}

// parseGrants reads images.private: a repository, or a place with /* after it, and who may have what is there; * is all.
func parseGrants(private map[string][]string) ([]grant, error) {
	var all []grant
	for _, pattern := range sortedKeys(private) {
		place, below := strings.CutSuffix(pattern, "/*")
		var err error
		if below && !strings.Contains(place, "/") {
			var r name.Registry
			r, err = name.NewRegistry(place)
			place = r.Name()
		} else {
			var r name.Repository
			if r, err = name.NewRepository(place); err == nil && !repositoryName.MatchString(r.RepositoryStr()) {
				err = errName
			}
			place = r.Name()
		}
		if err != nil || strings.Contains(place, "*") {
			return nil, sandbox.Errorf(sandbox.Invalid, err, "images.private: %q is neither a repository nor a place of a registry with /* after it", pattern)
		}
		if below {
			place += "/"
		}
		all = append(all, grant{place, private[pattern]})
	}
	return all, nil
}

var errName = errors.New("no name of a repository")

// CheckPrivate says what is wrong with images.private.
func CheckPrivate(private map[string][]string) error {
	_, err := parseGrants(private)
	return err
}

// granted tells whether a repository is private by the configuration, and whether the asker may use it. Where several
// places fit, each counts.
func granted(grants []grant, repository string, by Asker) (private, ok bool) {
	for _, g := range grants {
		if repository != g.place && !(strings.HasSuffix(g.place, "/") && strings.HasPrefix(repository, g.place)) {
			continue
		}
		private = true
		ok = ok || by.Host || slices.Contains(g.namespaces, by.Namespace) || slices.Contains(g.namespaces, "*")
	}
	return private, ok || !private
}

// admit says whether the asker may have the image, and whether the host's credentials may be used to get it.
//
// Errors: ImageNotFound, a private image that is not for this namespace: as one that is not there; Invalid, a form for
// operators only.
func (s *Store) admit(r reference, by Asker) (credentials bool, err error) {
	if r.form != registryForm {
		if by.Operator || by.Host {
			return false, nil
		}
		return false, OperatorsOnly(string(r.form) + ":")
	}
	private, ok := granted(s.grants, r.remote.Context().Name(), by)
	if !ok {
		return false, notFound(r)
	}
	return private, nil
}

// OperatorsOnly is the refusal of a form of reference to others.
func OperatorsOnly(form string) error {
	f := sandbox.Faults{{Field: "image", Reason: "an image by " + form + " is for credentials of role operator; name one of a registry"}}
	return f.Err(sandbox.Invalid)
}

// hidden are the words for an image that the registry does not give, and for one that is another namespace's: nobody learns
// by them that a place is somebody's.
const hidden = "its registry has it not, or not for everyone; an operator can grant credentials for it in images.private"

func notFound(r reference) error { return unavailable(r, nil, hidden) }

// unavailable says why an image can't be had.
func unavailable(r reference, cause error, reason string) error {
	return sandbox.Errorf(sandbox.ImageNotFound, cause, "image %s can't be had: %s", r, reason)
}

// MayUse says whether the asker may have an image of List.
func (s *Store) MayUse(i Info, by Asker) bool {
	r, err := parseReference(i.Ref)
	return err == nil && s.mayUse(manifest{Private: i.Private}, r, by) == nil
}

// mayUse says whether the asker may have an image that is in the store: one that was pulled with credentials is private
// even when the configuration no longer says so.
func (s *Store) mayUse(m manifest, r reference, by Asker) error {
	private, err := s.admit(r, by)
	if err == nil && m.Private && !private && !by.Host {
		return notFound(r)
	}
	return err
}
