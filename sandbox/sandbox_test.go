package sandbox_test

import (
	"encoding/json"
	"regexp"
	"testing"

	"outpost.run/outpost/sandbox"
)

func TestFileContentTravelsBothWays(t *testing.T) {
	for want, content := range map[string]string{`"ü"`: "ü", `""`: "", `{"base64":"/wA="}`: "\xff\x00"} {
		text, err := json.Marshal(sandbox.FileContent(content))
		if err != nil || string(text) != want {
			t.Errorf("%q travels as %s, %v, want %s", content, text, err, want)
		}
		var back sandbox.FileContent
		if err := json.Unmarshal(text, &back); err != nil || string(back) != content {
			t.Errorf("%s comes back as %q, %v", text, back, err)
		}
	}
}

func TestTimeHasMilliseconds(t *testing.T) {
	text, err := json.Marshal(sandbox.Now())
	if err != nil || !regexp.MustCompile(`^"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"$`).Match(text) {
		t.Errorf("a time travels as %s, %v", text, err)
	}
	var back sandbox.Time
	if err := json.Unmarshal([]byte(`"2026-01-02T03:04:05.6789+01:00"`), &back); err != nil || back.String() != "2026-01-02T02:04:05.678Z" {
		t.Errorf("read as %v, %v", back, err)
	}
}

func TestAFaultWithinAFaultIsNotSaid(t *testing.T) {
	var f sandbox.Faults
	for _, field := range []string{"env", "env[1]", "env.a", "environment", "env"} {
		f.Add(field, "is bad")
	}
	if len(f) != 2 || f[0].Field != "env" || f[1].Field != "environment" {
		t.Errorf("faults: %v", f)
	}
}

func TestRolesIncludeTheOnesBelow(t *testing.T) {
	order := []sandbox.Role{sandbox.Read, sandbox.Write, sandbox.Admin, sandbox.Operator}
	for i, a := range order {
		for j, b := range order {
			if a.Includes(b) != (i >= j) {
				t.Errorf("%s includes %s: %v", a, b, a.Includes(b))
			}
		}
	}
	if sandbox.Role("").Includes("") || sandbox.Role("root").Includes(sandbox.Read) {
		t.Error("a word that is no role has rights")
	}
}
