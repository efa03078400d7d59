package image

import (
	"encoding/json"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"outpost.run/outpost/sandbox"
)

// closed is a registry that gives to the host's credentials alone; it cleans paths, as a web server before one may.
func closed(t *testing.T) *hub {
	t.Helper()
	const user, password = "robot", "secret"
	h := newHub(t, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if u, p, _ := r.BasicAuth(); u != user || p != password {
				w.Header().Set("WWW-Authenticate", `Basic realm="r"`)
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			if r.Method == http.MethodGet && r.URL.Path != "/v2/" {
				r.URL.Path = path.Clean(r.URL.Path)
			}
			next.ServeHTTP(w, r)
		})
	})
	config, err := json.Marshal(map[string]any{"auths": map[string]any{h.host: map[string]string{"username": user, "password": password}}})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	t.Setenv("DOCKER_CONFIG", dir)
	if err := os.WriteFile(filepath.Join(dir, "config.json"), config, 0o600); err != nil {
		t.Fatal(err)
	}
	return h
}

func TestNoWayFromOneGrantedPlaceToAnother(t *testing.T) {
	h := closed(t)
	secret := h.push(t, "team-b/secret:1", small(t, "b"), remote.WithAuthFromKeychain(authn.DefaultKeychain))
	s := h.store(t, Options{Private: map[string][]string{h.host + "/team-a/*": {"a"}, h.host + "/team-b/*": {"b"}}})
	a, b := Asker{Namespace: "a"}, Asker{Namespace: "b"}
	for _, ref := range []string{"/team-a/../team-b/secret:1", "/team-a/x/../../team-b/secret:1", "/team-a/./../team-b/secret", "/./team-b/secret:1", "//team-b/secret:1"} {
		if img, err := s.EnsureFor(t.Context(), a, h.host+ref, nil); sandbox.CodeOf(err) != sandbox.ImageNotFound {
			t.Errorf("%s: %v, %v", ref, img, err)
		}
	}
	if asked := h.asked(); len(asked) > 0 {
		t.Errorf("the registry was asked for %q", asked)
	}
	if _, err := s.EnsureFor(t.Context(), b, secret, nil); err != nil {
		t.Errorf("whose it is: %v", err)
	}
	_, theirs := s.EnsureFor(t.Context(), a, secret, nil)
	_, nobodys := s.EnsureFor(t.Context(), a, h.host+"/elsewhere/secret:1", nil)
	if words := func(err error, ref string) string { // what a client reads, less the name
		e, _ := err.(*sandbox.Error)
		if e == nil {
			return ""
		}
		return strings.ReplaceAll(string(e.Code)+e.Message, ref, "REF")
	}; words(theirs, secret) == "" || words(theirs, secret) != words(nobodys, h.host+"/elsewhere/secret:1") {
		t.Errorf("an outsider tells what is somebody's from what is not there:\n%v\n%v", theirs, nobodys)
	}
}

func TestGrantsAreForNamesAlone(t *testing.T) {
	for pattern, ok := range map[string]bool{
		"registry.example/*": true, "registry.example/team/*": true, "registry.example/team/app": true, "registry.example/team/../*": false,
		"registry.example/team/..": false, "registry.example/./team/*": false, "registry.example//team/*": false, "registry.example/team*": false, "registry.example/te*m/*": false,
	} {
		if err := CheckPrivate(map[string][]string{pattern: {"*"}}); (err == nil) != ok {
			t.Errorf("%q: %v", pattern, err)
		}
	}
}
