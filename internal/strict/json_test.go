package strict_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"outpost.run/outpost/internal/strict"
	"outpost.run/outpost/sandbox"
)

type inner struct {
	MemoryMB *int     `json:"memory_mb" minimum:"16"`
	CPU      *float64 `json:"cpu_cores" minimum:"0.01"`
	Needed   *string  `json:"needed" required:"true"`
}

type request struct {
	Language *string                        `json:"language"`
	Mode     *string                        `json:"mode" enum:"ephemeral,stateful"`
	Name     *string                        `json:"name" maxLength:"5"`
	Keep     *bool                          `json:"keep"`
	Env      [][2]string                    `json:"env"`
	Args     []string                       `json:"args"`
	Ports    []inner                        `json:"ports"`
	Limits   *inner                         `json:"resource_limits"`
	Labels   map[string]string              `json:"labels"`
	Files    map[string]sandbox.FileContent `json:"files"`
}

func TestEveryFaultIsListedInTheContractsSpelling(t *testing.T) {
	for _, tc := range []struct {
		name, body string
		want       []string
	}{
		{"nothing wrong", `{"language":"python","keep":false,"env":[["A",""]],"labels":{}}`, nil},
		{"null is absent", `{"language":null,"env":null,"resource_limits":null,"labels":null}`, nil},
		{"wrong types", `{"language":5,"keep":1,"args":"x","labels":[],"resource_limits":"x"}`, []string{"args", "keep", "labels", "language", "resource_limits"}},
		{"items", `{"args":["a",5,null],"env":[["A","1"],["B"],[5,"x"],"C"]}`, []string{"args[1]", "args[2]", "env[1]", "env[2][0]", "env[3]"}},
		{"nested", `{"ports":[{"needed":"x"},{"memory_mb":true}],"resource_limits":{"needed":"x","memory_mb":15,"cpu_cores":"1"}}`,
			[]string{"ports[1].memory_mb", "ports[1].needed", "resource_limits.cpu_cores", "resource_limits.memory_mb"}},
		{"enum and length", `{"mode":"x","name":"üüüüüü"}`, []string{"mode", "name"}},
		{"unknown names", `{"lanuage":"x","resource_limits":{"needed":"x","memory":1}}`, []string{"lanuage", "resource_limits.memory"}},
		{"given twice", `{"language":"a","language":"b"}`, []string{"language"}},
		{"odd map keys are quoted", `{"labels":{"a b":1,"c":1},"files":{"x/y":5}}`, []string{`files["x/y"]`, "labels.c", `labels["a b"]`}},
		{"files", `{"files":{"a":"text","b":{"base64":"AA=="},"c":{"base64":"?"},"d":{"base64":"","x":1}}}`, []string{"files.c", "files.d"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			faults, err := strict.JSON([]byte(tc.body), &request{})
			var got []string
			for _, f := range faults {
				got = append(got, f.Field)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" || err != nil {
				t.Errorf("fields with faults (-want +got):\n%s%v, %v", diff, faults, err)
			}
		})
	}
}

func TestIntegers(t *testing.T) {
	for text, want := range map[string]int{"512": 512, "512.0": 512, "5.12e2": 512, "16": 16} {
		var r request
		faults, err := strict.JSON([]byte(`{"resource_limits":{"needed":"","memory_mb":`+text+`}}`), &r)
		if err != nil || len(faults) > 0 || *r.Limits.MemoryMB != want {
			t.Errorf("%s: %v, %v, %v; want %d", text, r.Limits, faults, err, want)
		}
	}
	for _, text := range []string{"1.5", "1e999", "1e30", "99999999999999999999", "-1e300", `"512"`, "true", "1e-300000000"} {
		faults, err := strict.JSON([]byte(`{"resource_limits":{"needed":"","memory_mb":`+text+`}}`), &request{})
		if err != nil || len(faults) != 1 {
			t.Errorf("%s: %v, %v; want one fault", text, faults, err)
		}
	}
}

func TestAnUnknownNameTellsTheNearest(t *testing.T) {
	faults, _ := strict.JSON([]byte(`{"lanuage":"x","zzz":1}`), &request{})
	if !strings.Contains(faults[0].Reason, "did you mean language?") || strings.Contains(faults[1].Reason, "mean") {
		t.Errorf("reasons: %v", faults)
	}
}

func TestWhatIsNoJSONObjectIsMalformed(t *testing.T) {
	for name, body := range map[string]string{
		"empty": "", "open": "{", "single quotes": "{'a':1}", "trailing": `{"language":"x"}x`, "two values": `{}{}`, "NaN": `{"a":NaN}`,
		"bad UTF-8": "{\"a\":\"\xff\"}", "deep": strings.Repeat("[", 200_000), "deep objects": strings.Repeat(`{"a":`, 100_000),
		"comment": `{"a":1/**/}`, "control": "{\"a\":\"\x01\"}", "array": "[]", "null": "null", "string": `"x"`, "number": "1",
		"half a surrogate pair": `{"language":"\ud800"}`, "its other half": `{"language":"\udc00"}`, "a pair the wrong way": `{"language":"\udc00\ud800"}`,
	} {
		if _, err := strict.JSON([]byte(body), &request{}); sandbox.CodeOf(err) != sandbox.MalformedJSON {
			t.Errorf("%s: %v, want malformed_json", name, err)
		}
	}
}

func TestEscapesSurvive(t *testing.T) {
	var r request
	body := `{"language":"\\ud800 \ud83d\ude00 \u2028 \" \\"}`
	if _, err := strict.JSON([]byte(body), &r); err != nil || *r.Language != "\\ud800 😀 \u2028 \" \\" {
		t.Errorf("%v, %v", r.Language, err)
	}
}

func FuzzJSON(f *testing.F) {
	f.Add([]byte(`{"language":"python","env":[["A","1"]],"ports":[{"memory_mb":1e2}]}`))
	f.Add([]byte(`{"files":{"a":{"base64":"AA=="}},"labels":{"":""},"zz":[{}]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		var r request
		_, err := strict.JSON(body, &r)
		if err == nil && !json.Valid(body) {
			t.Errorf("took what is no JSON: %q", body)
		}
	})
}
