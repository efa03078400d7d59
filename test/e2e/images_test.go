package e2e_test

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"outpost.run/outpost/client"
	"outpost.run/outpost/sandbox"
)

func TestAnImagesUserEnvAndDirectoryAreDefaults(t *testing.T) {
	r := newHub(t)
	s := r.server(t, "")
	users := text("etc/passwd", "root:x:0:0::/root:/bin/sh\napp:x:1234:77::/home/app:/bin/sh\n")
	groups := text("etc/group", "web:x:4321:\n")
	const bare = "1000:1000"
	for _, tc := range []struct {
		name   string
		config v1.Config
		files  []tar.Header
		change func(*sandbox.CreateRequest)
		user   string
		dir    string
		says   string
	}{
		{"what the image says", v1.Config{User: "app", WorkingDir: "/srv/app", Env: []string{"MARK=image", "HOME=/h"}}, []tar.Header{users}, nil, "app", "/srv/app", "1234 77 /srv/app /h image"},
		{"a user with a group", v1.Config{User: "app:web"}, []tar.Header{users, groups}, nil, "app:web", "/workspace", "1234 4321 /workspace /home/app"},
		{"an image that says nothing", v1.Config{}, nil, nil, bare, "/workspace", "1000 1000 /workspace /"},
		{"root is no default", v1.Config{User: "0:0", WorkingDir: "/"}, []tar.Header{users}, nil, bare, "/workspace", "1000 1000 /workspace /"},
		{"a user of that name", v1.Config{}, []tar.Header{text("etc/passwd", "sandbox:x:55:56::/s:/bin/sh\n")}, nil, "sandbox", "/workspace", "55 56 /workspace /s"},
		{"root by that name", v1.Config{}, []tar.Header{text("etc/passwd", "sandbox:x:0:0::/s:/bin/sh\n")}, nil, bare, "/workspace", "1000 1000 /workspace /"},
		{"a preset wins", v1.Config{User: "app"}, []tar.Header{users}, func(c *sandbox.CreateRequest) { c.Security = &sandbox.SecurityRequest{Preset: new("standard")} }, bare, "/workspace", "1000 1000 /workspace /"},
		{"so does maximum", v1.Config{User: "app", WorkingDir: "/srv"}, []tar.Header{users}, func(c *sandbox.CreateRequest) { c.Security = &sandbox.SecurityRequest{Preset: new("maximum")} }, "65534", "/srv", "65534 65534 /srv /"},
		{"fields win", v1.Config{User: "app", WorkingDir: "/srv", Env: []string{"MARK=image"}}, []tar.Header{users}, func(c *sandbox.CreateRequest) {
			c.Security, c.WorkingDir, c.Env = &sandbox.SecurityRequest{User: new("7:8")}, new("/mine"), [][2]string{{"MARK", "mine"}}
		}, "7:8", "/mine", "7 8 /mine / mine"},
		{"a directory that can't be", v1.Config{WorkingDir: "../x"}, nil, nil, bare, "/workspace", "1000 1000 /workspace /"},
	} {
		for _, mode := range []sandbox.Mode{sandbox.Ephemeral, sandbox.Stateful} {
			t.Run(tc.name+" in "+string(mode), func(t *testing.T) {
				c := withImage(r.push(t, "defaults:"+sandbox.NewID("t"), picture(t, tc.config, tc.files...)))
				c.Mode = new(string(mode))
				if tc.change != nil {
					tc.change(&c)
				}
				made := s.box(t, c)
				if made.Security.User != tc.user || made.WorkingDir != tc.dir || len(made.Isolation.Missing) > 0 {
					t.Errorf("the answer has user %s, working_dir %s, missing %v", made.Security.User, made.WorkingDir, made.Isolation.Missing)
				}
				read, err := s.Get(t.Context(), made.ID)
				if err != nil || read.Security.User != tc.user || read.WorkingDir != tc.dir {
					t.Errorf("read again: %+v, %v", read, err)
				}
				result, err := s.Exec(t.Context(), made.ID, sandbox.ExecRequest{Code: new("look")})
				if err != nil {
					t.Fatal(err)
				}
				root := "true true false"
				if got := clean(t, result); got != tc.says+" \n"+root && got != tc.says+"\n"+root {
					t.Errorf("it sees %q, want %q", got, tc.says+"\n"+root)
				}
			})
		}
	}
}

func TestImagesThatLackOrBendWhatMachinesNeed(t *testing.T) {
	r := newHub(t)
	s := r.server(t, "")
	link := func(name, target string) tar.Header {
		return tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: target}
	}
	for name, files := range map[string][]tar.Header{
		"nothing but a program":         nil,
		"links in their places":         {link("dev", "/etc"), link("proc", "../../.."), link("sys", "nowhere"), {Name: "var/tmp/", Typeflag: tar.TypeDir, Mode: 0o777}, link("tmp", "var/tmp")},
		"files in their places":         {text("dev", ""), text("proc", ""), text("sys", "")},
		"a working directory by a link": {{Name: "data1/", Typeflag: tar.TypeDir, Mode: 0o777}, link("workspace", "/data1")},
	} {
		for _, preset := range presets {
			t.Run(name+" in "+string(preset), func(t *testing.T) {
				c := withImage(r.push(t, "bent:"+sandbox.NewID("t"), picture(t, v1.Config{}, files...)))
				c.Security = &sandbox.SecurityRequest{Preset: new(string(preset))}
				made := s.box(t, c)
				result, err := s.Exec(t.Context(), made.ID, sandbox.ExecRequest{Code: new("look")})
				if err != nil {
					t.Fatal(err)
				}
				lines := strings.Split(clean(t, result), "\n")
				if want := map[bool]string{true: "true true true", false: "true true false"}[preset == sandbox.Development]; len(lines) != 2 || lines[1] != want {
					t.Errorf("it sees %q, want %q", lines, want)
				}
			})
		}
	}
	for name, files := range map[string][]tar.Header{
		"a file for /tmp":                {text("tmp", "")},
		"a link to nowhere for /tmp":     {link("tmp", "/nowhere")},
		"a link in a circle for /tmp":    {link("tmp", "tmp")},
		"a file for the directory":       {text("workspace", "")},
		"a program that is no file":      {{Name: "bin/bash/", Typeflag: tar.TypeDir}},
		"a program that is a dead link":  {link("bin/bash", "/nowhere")},
		"a program that can't be run":    {text("bin/bash", "")},
		"a file for /etc":                {text("etc", "")},
		"a link to nowhere for /etc":     {link("etc", "/nowhere")},
		"a directory for the hosts":      {{Name: "etc/hosts/", Typeflag: tar.TypeDir}},
		"a directory for the resolver":   {{Name: "etc/resolv.conf/", Typeflag: tar.TypeDir}},
		"a directory that holds a file":  {text("etc/resolv.conf/x", "")},
		"accounts that are a directory":  {{Name: "etc/passwd/", Typeflag: tar.TypeDir}, text("workspace", "")},
		"accounts that are a named pipe": {{Name: "etc/passwd", Typeflag: tar.TypeFifo}, text("workspace", "")},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := s.Create(t.Context(), withImage(r.push(t, "broken:"+sandbox.NewID("t"), picture(t, v1.Config{}, files...))))
			code := sandbox.CodeOf(err)
			if code != sandbox.Invalid && code != sandbox.LanguageRuntimeMissing {
				t.Errorf("created: %v", err)
			}
			if told, is := errors.AsType[*sandbox.Error](err); strings.Contains(name, "/etc") && (!is || len(told.Details) != 1 || told.Details[0].Field != "image") {
				t.Errorf("it does not name the field image: %+v", err)
			}
		})
	}
}

func TestWhatAnImageLacksIsSaidAtCreate(t *testing.T) {
	r := newHub(t)
	s := r.server(t, "")
	image := r.push(t, "small:1", picture(t, v1.Config{}))
	for _, tc := range []struct {
		name   string
		change func(*sandbox.CreateRequest)
		code   sandbox.Code
	}{
		{"the interpreter", func(c *sandbox.CreateRequest) { c.Language = new("python") }, sandbox.LanguageRuntimeMissing},
		{"the compiler", func(c *sandbox.CreateRequest) { c.Language = new("go") }, sandbox.LanguageRuntimeMissing},
		{"the user", func(c *sandbox.CreateRequest) { c.Security = &sandbox.SecurityRequest{User: new("nobody-here")} }, sandbox.UserNotFound},
		{"the preset's user, asked for by name", func(c *sandbox.CreateRequest) { c.Security = &sandbox.SecurityRequest{User: new("sandbox")} }, sandbox.UserNotFound},
		{"the tag", func(c *sandbox.CreateRequest) { c.Image = new(image + "0") }, sandbox.ImageNotFound},
		{"the repository", func(c *sandbox.CreateRequest) { c.Image = new(r.host + "/other") }, sandbox.ImageNotFound},
		{"the registry", func(c *sandbox.CreateRequest) { c.Image = new("127.0.0.1:1/other") }, sandbox.ImageNotFound},
		{"sense", func(c *sandbox.CreateRequest) { c.Image = new("https://127.0.0.1/a") }, sandbox.ImageNotFound},
	} {
		for _, mode := range []sandbox.Mode{sandbox.Ephemeral, sandbox.Stateful} {
			c := withImage(image)
			c.Mode = new(string(mode))
			tc.change(&c)
			if _, err := s.Create(t.Context(), c); sandbox.CodeOf(err) != tc.code {
				t.Errorf("%s in %s: %v", tc.name, mode, err)
			}
		}
	}
}

func TestFormsOfImagesForOperatorsOnly(t *testing.T) {
	r := newHub(t)
	root := t.TempDir()
	s := r.server(t, fmt.Sprintf("local_roots: [%q]", root))
	img := picture(t, v1.Config{})
	tag, err := name.NewTag("example/app:1")
	if err == nil {
		err = tarball.WriteToFile(filepath.Join(root, "app.tar"), tag, img)
	}
	if err != nil {
		t.Fatal(err)
	}
	key, err := s.CreateKey(t.Context(), sandbox.KeyRequest{Name: new("acme"), Namespace: new("acme"), Role: new("admin")})
	if err != nil {
		t.Fatal(err)
	}
	tenant, err := client.New(s.Address(), "", client.WithAPIKey(key.Name, key.Secret), client.WithNamespace("acme"))
	if err != nil {
		t.Fatal(err)
	}
	public := r.push(t, "public:1", img)
	for _, tc := range []struct {
		image    string
		operator sandbox.Code
		tenant   sandbox.Code
	}{
		{public, "", ""},
		{"deb:trixie", "", ""}, // a language's own
		{"deb:trixie?include=no-such-package", sandbox.ImageNotFound, sandbox.Invalid},
		{"docker-archive:" + root + "/app.tar", "", sandbox.Invalid},
		{"docker-archive:/etc/passwd", sandbox.ImageNotFound, sandbox.Invalid},
		{"dir:/", sandbox.ImageNotFound, sandbox.Invalid},
	} {
		for _, by := range []struct {
			*client.Client
			want sandbox.Code
		}{{s.Client, tc.operator}, {tenant, tc.tenant}} {
			made, err := by.Create(t.Context(), withImage(tc.image))
			if sandbox.CodeOf(err) != by.want {
				t.Errorf("%s in %s: %v, want %q", tc.image, by.Namespace(), err, by.want)
			}
			if err == nil {
				if err := by.Delete(t.Context(), made.ID); err != nil {
					t.Error(err)
				}
			}
			_, err = by.Execute(t.Context(), sandbox.ExecuteRequest{Language: new("bash"), Image: &tc.image, Code: new("")})
			if sandbox.CodeOf(err) != by.want {
				t.Errorf("execute with %s in %s: %v, want %q", tc.image, by.Namespace(), err, by.want)
			}
		}
	}
	seen := func(c *client.Client) (names []string) {
		all, err := c.Images(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range all {
			names = append(names, i.Image)
		}
		return names
	}
	if all := strings.Join(seen(s.Client), " "); !strings.Contains(all, "app.tar") || !strings.Contains(all, public) || !strings.Contains(all, "deb:trixie ") {
		t.Errorf("an operator sees %s", all)
	}
	if all := strings.Join(seen(tenant), " "); strings.Contains(all, "app.tar") || !strings.Contains(all, public) || !strings.Contains(all, "deb:trixie ") {
		t.Errorf("others see %s", all)
	}
}

func TestCreateWaitsForAnImageAsLongAsItIsAsked(t *testing.T) {
	r := newHub(t)
	s := r.server(t, "")
	image := r.push(t, "slow:1", picture(t, v1.Config{}))
	hold := make(chan struct{})
	r.holdBlobs(hold)
	c := withImage(image)
	for secs, least := range []time.Duration{0, time.Second} {
		began := time.Now()
		c.CreateWaitSecs = &secs
		_, err := s.Create(t.Context(), c)
		var told *sandbox.Error
		if sandbox.CodeOf(err) != sandbox.ImagePreparing || !errors.As(err, &told) || told.RetryAfterSecs == 0 || !strings.Contains(told.Message, image) {
			t.Errorf("while its registry is slow: %v", err)
		}
		if took := time.Since(began); took < least || took > least+20*time.Second { // 60 s is what it would wait by itself
			t.Errorf("create_wait_secs %d took %s", secs, took)
		}
	}
	close(hold)
	c.CreateWaitSecs = nil
	s.box(t, c)
}

func TestAStatefulSandboxKeepsTheImageItWasMadeFrom(t *testing.T) {
	r := newHub(t)
	s := r.server(t, "")
	image := r.push(t, "app:1", picture(t, v1.Config{}, text("etc/mark", "old")))
	c := withImage(image)
	c.Mode = new("stateful")
	made := s.box(t, c)
	put := func(want string) {
		t.Helper()
		result, err := s.Exec(t.Context(), made.ID, sandbox.ExecRequest{Code: new("put /workspace/f")})
		if err != nil {
			t.Fatal(err)
		}
		if out := clean(t, result); out != want {
			t.Errorf("the file held %q, want %q", out, want)
		}
	}
	put("|")
	r.push(t, "app:1", picture(t, v1.Config{}, text("etc/mark", "new")))
	for _, args := range [][]string{{"image", "pull", image}, {"image", "rm", image}, {"image", "prune", "--store-gb", "0"}} {
		if out, err := s.command(args...); err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
	}
	if err := s.kill(); err != nil {
		t.Fatal(err)
	}
	if err := s.start(); err != nil {
		t.Fatal(err)
	}
	put("kept|")
	for _, call := range []func(context.Context, string) (sandbox.Sandbox, error){s.Stop, s.Start} {
		if now, err := call(t.Context(), made.ID); err != nil || now.ImageDigest != made.ImageDigest {
			t.Fatalf("%+v, %v", now, err)
		}
	}
	put("kept|")
	if err := s.Delete(t.Context(), made.ID); err != nil {
		t.Fatal(err)
	}
	if out, err := s.command("image", "prune", "--store-gb", "0"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if left, err := filepath.Glob(filepath.Join(s.dir, "images", "layers", "*")); err != nil || len(left) > 0 {
		t.Errorf("layers of nobody: %v, %v", left, err)
	}
}

func TestTheCommandLineTakesImagesIn(t *testing.T) {
	r := newHub(t)
	s := newServer(t)
	dir := t.TempDir()
	img := picture(t, v1.Config{})
	tag, err := name.NewTag("example/app:1")
	if err == nil {
		err = tarball.WriteToFile(filepath.Join(dir, "app.tar"), tag, img)
	}
	if err != nil {
		t.Fatal(err)
	}
	archive, remote := "docker-archive:"+dir+"/app.tar", r.push(t, "app:1", img)
	out, err := s.command("image", "pull", archive, remote)
	if err != nil || strings.Count(out, "sha256:") != 2 {
		t.Fatalf("pull: %v\n%s", err, out)
	}
	out, err = s.command("image", "ls", "--json")
	if err != nil || !strings.Contains(out, archive) || !strings.Contains(out, remote) {
		t.Errorf("ls: %v\n%s", err, out)
	}
	if out, err := s.command("image", "pull", r.host+"/none:1"); err == nil || strings.Count(out, "\n") > 3 {
		t.Errorf("pull of what is not there: %v\n%s", err, out)
	}
	if out, err := s.command("image", "rm", archive, remote); err != nil {
		t.Errorf("rm: %v\n%s", err, out)
	}
	if out, err := s.command("image", "rm", remote); err == nil {
		t.Errorf("rm a second time: %s", out)
	}
}
