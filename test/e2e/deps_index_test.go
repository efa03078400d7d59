package e2e_test

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
)

// indexSecret is what the index of the tests wants to hear; no machine may ever hear it.
const indexSecret = "the-secret-of-the-index"

// packageIndex serves packages of the tests' own to pip, npm, go and cargo, each below a path of its own, for credentials.
type packageIndex struct {
	*httptest.Server
	mu     sync.Mutex
	files  map[string][]byte
	asked  map[string]int
	hold   map[string]chan struct{} // a path that answers only when this is closed
	arrive chan string              // paths that are held
}

func newIndex(t *testing.T) *packageIndex {
	t.Helper()
	x := &packageIndex{files: map[string][]byte{}, asked: map[string]int{}, hold: map[string]chan struct{}{}, arrive: make(chan string, 100)}
	x.Server = httptest.NewServer(x)
	t.Cleanup(x.Close)
	return x
}

func (x *packageIndex) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	user, password, _ := r.BasicAuth()
	if user != "u" || password != indexSecret {
		http.Error(w, "no", http.StatusUnauthorized)
		return
	}
	x.mu.Lock()
	path := r.URL.EscapedPath()
	x.asked[path]++
	body, ok := x.files[path]
	hold := x.hold[path]
	x.mu.Unlock()
	if hold != nil {
		x.arrive <- path
		select {
		case <-hold:
		case <-r.Context().Done():
			x.arrive <- "gone"
			return
		}
	}
	if !ok {
		http.NotFound(w, r)
		return
	}
	if strings.HasPrefix(path, "/npm/") && body[0] == '{' {
		w.Header().Set("Content-Type", "application/json")
	} else if strings.HasPrefix(path, "/pip/") && strings.HasSuffix(path, "/") {
		w.Header().Set("Content-Type", "text/html")
	}
	_, _ = w.Write(body)
}

func (x *packageIndex) put(path string, body []byte) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.files[path] = body
}

func (x *packageIndex) times(path string) int {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.asked[path]
}

// flags let a server take its packages from here.
func (x *packageIndex) flags() []string {
	at := "http://u:" + indexSecret + "@" + strings.TrimPrefix(x.URL, "http://")
	return []string{"--deps-pip-index", at + "/pip", "--deps-npm-registry", at + "/npm", "--deps-go-proxy", at + "/go", "--deps-cargo-index", "sparse+" + at + "/cargo/"}
}

// wheel adds a Python package. Its page names all versions so far.
func (x *packageIndex) wheel(name, version string, files map[string]string) {
	info := name + "-" + version + ".dist-info/"
	all := map[string]string{
		info + "METADATA": "Metadata-Version: 2.1\nName: " + name + "\nVersion: " + version + "\n",
		info + "WHEEL":    "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
	}
	record := info + "RECORD,,\n"
	for path, text := range files {
		all[strings.ReplaceAll(path, "INFO/", info)] = text
	}
	for path := range all {
		record += path + ",,\n"
	}
	all[info+"RECORD"] = record
	x.pipFile(name, name+"-"+version+"-py3-none-any.whl", zipped(all))
}

// pipFile adds a file to a project's page, with its sum.
func (x *packageIndex) pipFile(project, file string, body []byte) {
	sum := sha256.Sum256(body)
	x.put("/pip/files/"+file, body)
	x.pipLink(project, "../files/"+file+"#sha256="+hex.EncodeToString(sum[:]))
}

func (x *packageIndex) pipLink(project, href string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	page := "/pip/" + project + "/"
	x.files[page] = append(x.files[page], fmt.Appendf(nil, "<a href=%q>file</a>\n", href)...)
}

// npm adds a Node package in one version.
func (x *packageIndex) npm(name, version string, files map[string]string) {
	all := map[string]string{}
	for path, text := range files {
		all["package/"+path] = text
	}
	var manifest map[string]any
	if err := json.Unmarshal([]byte(files["package.json"]), &manifest); err != nil {
		panic(err)
	}
	body := tarred(all)
	sum := sha512.Sum512(body)
	tarball := "/npm/" + name + "/-/x-" + version + ".tgz"
	manifest["dist"] = map[string]string{"tarball": x.URL + tarball, "integrity": "sha512-" + base64.StdEncoding.EncodeToString(sum[:])}
	_, scripts := manifest["scripts"]
	manifest["hasInstallScript"] = scripts
	page, err := json.Marshal(map[string]any{"name": name, "dist-tags": map[string]string{"latest": version}, "versions": map[string]any{version: manifest}})
	if err != nil {
		panic(err)
	}
	x.put(tarball, body)
	x.put("/npm/"+strings.ReplaceAll(name, "/", "%2f"), page)
}

// module adds a Go module in one version.
func (x *packageIndex) module(path, version string, files map[string]string) {
	all := map[string]string{}
	for name, text := range files {
		all[path+"@"+version+"/"+name] = text
	}
	at := "/go/" + path + "/@v/"
	x.put(at+"list", []byte(version+"\n"))
	x.put(at+version+".info", []byte(`{"Version":"`+version+`","Time":"2024-01-01T00:00:00Z"}`))
	x.put(at+version+".mod", []byte(files["go.mod"]))
	x.put(at+version+".zip", zipped(all))
}

// crate adds a crate in one version; its name has four letters or more.
func (x *packageIndex) crate(name, version string, files map[string]string) {
	all := map[string]string{}
	for path, text := range files {
		all[name+"-"+version+"/"+path] = text
	}
	body := tarred(all)
	sum := sha256.Sum256(body)
	x.put("/cargo/config.json", []byte(`{"dl":"`+x.URL+`/cargo/crates"}`))
	x.put("/cargo/"+name[:2]+"/"+name[2:4]+"/"+name, []byte(`{"name":"`+name+`","vers":"`+version+`","deps":[],"cksum":"`+hex.EncodeToString(sum[:])+`","features":{},"yanked":false}`+"\n"))
	x.put("/cargo/crates/"+name+"/"+version+"/download", body)
}

func sortedNames(files map[string]string) (names []string) {
	for name := range files {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func zipped(files map[string]string) []byte {
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for _, name := range sortedNames(files) {
		f, err := w.Create(name)
		if err == nil {
			_, err = f.Write([]byte(files[name]))
		}
		if err != nil {
			panic(err)
		}
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
	return b.Bytes()
}

func tarred(files map[string]string) []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	for _, name := range sortedNames(files) {
		err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(files[name]))})
		if err == nil {
			_, err = w.Write([]byte(files[name]))
		}
		if err != nil {
			panic(err)
		}
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
	if err := z.Close(); err != nil {
		panic(err)
	}
	return b.Bytes()
}
