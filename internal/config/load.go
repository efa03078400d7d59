package config

import (
	"cmp"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"

	"github.com/knadh/koanf/providers/confmap"
	"github.com/knadh/koanf/v2"
	"go.yaml.in/yaml/v3"

	"outpost.run/outpost/internal/strict"
	"outpost.run/outpost/sandbox"
)

// Key is one key of the configuration that can be given as a flag and as a variable.
type Key struct {
	Path string // rate_limit.burst
	Doc  string
	Kind string // what its value is, in a word or two: seconds, MiB, number, true|false
	text bool   // its value is text as it stands
	list bool

	Initial string // its value where nobody says one
}

// Flag is the key's flag, without dashes in front.
func (k Key) Flag() string { return strings.NewReplacer(".", "-", "_", "-").Replace(k.Path) }

// Variable is the key's variable.
func (k Key) Variable() string {
	return "OUTPOST_" + strings.ToUpper(strings.ReplaceAll(k.Path, ".", "_"))
}

// Keys are all keys that have a value of their own, in the order of their paths.
func Keys() []Key {
	keys := keysOf(reflect.ValueOf(Default()), "")
	slices.SortFunc(keys, func(a, b Key) int { return cmp.Compare(a.Path, b.Path) })
	return keys
}

func keysOf(v reflect.Value, path string) []Key {
	var keys []Key
	for name, f := range strict.Fields(v.Type()) {
		at, value := sandbox.Field(path, name), v.FieldByIndex(f.Index)
		if f.Type.Kind() == reflect.Struct {
			keys = append(keys, keysOf(value, at)...)
			continue
		}
		k := Key{Path: at, Doc: f.Tag.Get("doc"), Kind: kindOf(name, f), text: f.Type.Kind() == reflect.String, list: f.Type.Kind() == reflect.Slice}
		if !value.IsZero() {
			k.Initial = fmt.Sprint(value)
		}
		keys = append(keys, k)
	}
	return keys
}

// units are by the ends of keys what their numbers count.
var units = map[string]string{"_mb": "MiB", "_gb": "GiB", "_ms": "milliseconds", "_secs": "seconds", "_hours": "hours"}

func kindOf(name string, f reflect.StructField) string {
	if words := f.Tag.Get("enum"); words != "" {
		return strings.ReplaceAll(words, ",", "|")
	}
	switch f.Type.Kind() {
	case reflect.Bool:
		return "true|false"
	case reflect.String:
		return "text"
	case reflect.Slice:
		return "a,b"
	case reflect.Map:
		return "{name:value}"
	}
	for end, unit := range units {
		if strings.HasSuffix(name, end) {
			return unit
		}
	}
	return "number"
}

// Sources are where a configuration comes from.
type Sources struct {
	File  string                            // "" for none
	Env   func(name string) (string, bool)  // os.LookupEnv
	Flags func(name string) (string, bool)  // whether the flag was given, and its text
	Read  func(path string) ([]byte, error) // os.ReadFile unless set
}

// Load reads them all. The error lists every fault, each with the place where it stands.
func Load(s Sources) (Config, error) {
	c := Default()
	tree, lines, err := s.file()
	if err != nil {
		return c, err
	}
	k := koanf.New(".")
	if err := k.Load(confmap.Provider(tree, ""), nil); err != nil {
		return c, err
	}
	places := map[string]string{}
	for path, line := range lines {
		places[path] = fmt.Sprintf("%s:%d", s.File, line)
	}
	for _, layer := range []struct {
		look func(string) (string, bool)
		name func(Key) string
		say  string
	}{{s.Env, Key.Variable, ""}, {s.Flags, Key.Flag, "--"}} {
		for _, key := range Keys() {
			if layer.look == nil {
				continue
			}
			if text, given := layer.look(layer.name(key)); given {
				if err := k.Load(confmap.Provider(map[string]any{key.Path: key.value(text)}, "."), nil); err != nil {
					return c, err
				}
				places[key.Path] = layer.say + layer.name(key)
			}
		}
	}
	faults := strict.Tree(k.Raw(), &c)
	c.check(&faults)
	return c, report(faults, places)
}

// value reads the text of a flag or variable as the file would; a list needs no brackets.
func (k Key) value(text string) any {
	var v any
	if k.list && !strings.HasPrefix(strings.TrimSpace(text), "[") {
		text = "[" + text + "]"
	}
	if k.text || yaml.Unmarshal([]byte(text), &v) != nil {
		return text
	}
	return v
}

func (s Sources) file() (tree map[string]any, lines map[string]int, err error) {
	tree, lines = map[string]any{}, map[string]int{}
	if s.File == "" {
		return tree, lines, nil
	}
	read := s.Read
	if read == nil {
		read = os.ReadFile
	}
	text, err := read(s.File)
	if err != nil {
		return nil, nil, fmt.Errorf("the configuration can't be read: %w", err)
	}
	var root yaml.Node
	if err := yaml.Unmarshal(text, &root); err != nil {
		return nil, nil, fmt.Errorf("%s is no YAML: %w", s.File, err)
	}
	if len(root.Content) == 0 {
		return tree, lines, nil
	}
	if root.Content[0].Kind != yaml.MappingNode {
		return nil, nil, fmt.Errorf("%s must hold keys with values", s.File)
	}
	if err := root.Decode(&tree); err != nil {
		return nil, nil, fmt.Errorf("%s: %w", s.File, err)
	}
	noteLines(root.Content[0], "", lines)
	return tree, lines, nil
}

// noteLines remembers where each key stands.
func noteLines(n *yaml.Node, path string, lines map[string]int) {
	switch n.Kind {
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			at := sandbox.Field(path, n.Content[i].Value)
			lines[at] = n.Content[i].Line
			noteLines(n.Content[i+1], at, lines)
		}
	case yaml.SequenceNode:
		for i, item := range n.Content {
			at := fmt.Sprintf("%s[%d]", path, i)
			lines[at] = item.Line
			noteLines(item, at, lines)
		}
	}
}

func report(faults sandbox.Faults, places map[string]string) error {
	if len(faults) == 0 {
		return nil
	}
	slices.SortStableFunc(faults, func(a, b sandbox.Detail) int { return cmp.Compare(a.Field, b.Field) })
	said := []string{"the configuration can't be used:"}
	for _, f := range faults {
		line := "  "
		if place := placeOf(f.Field, places); place != "" {
			line += place + ": "
		}
		said = append(said, line+f.Field+": "+f.Reason)
	}
	return fmt.Errorf("%s", strings.Join(said, "\n"))
}

// placeOf is where a field stands, or the nearest thing around it that does.
func placeOf(field string, places map[string]string) string {
	for field != "" {
		if place := places[field]; place != "" {
			return place
		}
		field = field[:max(0, strings.LastIndexAny(field, ".["))]
	}
	return ""
}
