package strict

import (
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"outpost.run/outpost/sandbox"
)

// Tree decodes a tree of maps, slices and scalars that another format gave, by the rules of JSON.
func Tree(tree map[string]any, into any) sandbox.Faults {
	var d decoder
	d.object(tree, reflect.ValueOf(into).Elem(), "")
	return d.faults
}

// Value is a type that reads itself; it says in words what is wrong, "" when nothing is.
type Value interface{ Decode(v any) (wrong string) }

type decoder struct{ faults sandbox.Faults }

func (d *decoder) object(object map[string]any, into reflect.Value, path string) {
	fields := Fields(into.Type())
	for name := range fields {
		field := fields[name]
		value, given := object[name]
		if !given || value == nil {
			if field.Tag.Get("required") == "true" {
				d.faults.Add(sandbox.Field(path, name), "is required")
			}
			continue
		}
		d.value(value, into.FieldByIndex(field.Index), sandbox.Field(path, name), field.Tag)
	}
	known := make([]string, 0, len(fields))
	for name := range fields {
		known = append(known, name)
	}
	slices.Sort(known)
	for name := range object {
		if _, is := fields[name]; !is {
			reason := "is not known"
			if near := Nearest(name, known); near != "" {
				reason += "; did you mean " + near + "?"
			}
			d.faults.Add(sandbox.Field(path, name), "%s", reason)
		}
	}
	slices.SortStableFunc(d.faults, func(a, b sandbox.Detail) int { return strings.Compare(a.Field, b.Field) })
}

// Fields are the fields of a struct type by the names in their json tags.
func Fields(t reflect.Type) map[string]reflect.StructField {
	fields := map[string]reflect.StructField{}
	for _, f := range reflect.VisibleFields(t) {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name != "" && name != "-" {
			fields[name] = f
		}
	}
	return fields
}

func (d *decoder) value(v any, into reflect.Value, path string, tag reflect.StructTag) {
	if self, is := into.Addr().Interface().(Value); is {
		if wrong := self.Decode(v); wrong != "" {
			d.faults.Add(path, "%s", wrong)
		}
		return
	}
	switch into.Kind() {
	case reflect.Pointer:
		fresh, before := reflect.New(into.Type().Elem()), len(d.faults)
		d.value(v, fresh.Elem(), path, tag)
		if fresh.Elem().Kind() == reflect.Struct || len(d.faults) == before {
			into.Set(fresh)
		}
	case reflect.Struct:
		if object, is := v.(map[string]any); is {
			d.object(object, into, path)
		} else {
			d.wrongType(path, "an object", v)
		}
	case reflect.Map:
		d.mapping(v, into, path)
	case reflect.Slice:
		d.list(v, into, path)
	case reflect.Array:
		d.array(v, into, path)
	default:
		d.scalar(v, into, path, tag)
	}
}

func (d *decoder) mapping(v any, into reflect.Value, path string) {
	object, is := v.(map[string]any)
	if !is {
		d.wrongType(path, "an object", v)
		return
	}
	into.Set(reflect.MakeMap(into.Type()))
	for key, item := range object {
		element := reflect.New(into.Type().Elem()).Elem()
		d.value(item, element, sandbox.Field(path, key), "")
		into.SetMapIndex(reflect.ValueOf(key), element)
	}
}

func (d *decoder) list(v any, into reflect.Value, path string) {
	items, is := v.([]any)
	if !is {
		d.wrongType(path, "a list", v)
		return
	}
	into.Set(reflect.MakeSlice(into.Type(), len(items), len(items)))
	for i, item := range items {
		d.value(item, into.Index(i), fmt.Sprintf("%s[%d]", path, i), "")
	}
}

func (d *decoder) array(v any, into reflect.Value, path string) {
	items, is := v.([]any)
	if !is || len(items) != into.Len() {
		d.faults.Add(path, `must be a pair ["NAME", "value"]`)
		return
	}
	for i, item := range items {
		d.value(item, into.Index(i), fmt.Sprintf("%s[%d]", path, i), "")
	}
}

func (d *decoder) scalar(v any, into reflect.Value, path string, tag reflect.StructTag) {
	switch into.Kind() {
	case reflect.String:
		text, is := v.(string)
		if !is {
			d.wrongType(path, "a string", v)
			return
		}
		if known := tag.Get("enum"); known != "" && !slices.Contains(strings.Split(known, ","), text) {
			reason := "must be one of " + strings.ReplaceAll(known, ",", ", ")
			d.faults.Add(path, "%s, not %s", reason, clip(text))
			return
		}
		if most, err := strconv.Atoi(tag.Get("maxLength")); err == nil && utf8.RuneCountInString(text) > most {
			d.faults.Add(path, "has more than %d characters", most)
			return
		}
		into.SetString(text)
	case reflect.Bool:
		b, is := v.(bool)
		if !is {
			d.wrongType(path, "true or false", v)
			return
		}
		into.SetBool(b)
	case reflect.Int, reflect.Int64:
		n, wrong := integer(v)
		if wrong != "" {
			d.faults.Add(path, "%s", wrong)
			return
		}
		if d.within(float64(n), path, tag) {
			into.SetInt(n)
		}
	case reflect.Float64:
		text, is := number(v)
		if !is {
			d.wrongType(path, "a number", v)
			return
		}
		x, err := strconv.ParseFloat(text, 64)
		if err != nil || math.IsInf(x, 0) || math.IsNaN(x) {
			d.faults.Add(path, "is out of range")
			return
		}
		if d.within(x, path, tag) {
			into.SetFloat(x)
		}
	default:
		panic("strict: no rule for a field of type " + into.Type().String())
	}
}

func (d *decoder) within(x float64, path string, tag reflect.StructTag) bool {
	least, noLeast := strconv.ParseFloat(tag.Get("minimum"), 64)
	most, noMost := strconv.ParseFloat(tag.Get("maximum"), 64)
	switch {
	case noLeast == nil && x < least:
		d.faults.Add(path, "must be at least %s", tag.Get("minimum"))
	case noMost == nil && x > most:
		d.faults.Add(path, "must be at most %s", tag.Get("maximum"))
	default:
		return true
	}
	return false
}

// number is the text of a JSON or YAML number.
func number(v any) (string, bool) {
	switch v := v.(type) {
	case json.Number:
		return v.String(), true
	case int, int64, uint64, float64:
		return fmt.Sprint(v), true
	}
	return "", false
}

// integer reads a number that has no fraction, however it is written.
func integer(v any) (n int64, wrong string) {
	text, is := number(v)
	if !is {
		return 0, "must be an integer, not " + kind(v)
	}
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		return n, ""
	}
	x, err := strconv.ParseFloat(text, 64)
	if err != nil || math.Abs(x) > 1<<53 {
		return 0, "is out of range"
	}
	if x != math.Trunc(x) {
		return 0, "must be an integer"
	}
	return int64(x), ""
}

func (d *decoder) wrongType(path, want string, got any) {
	d.faults.Add(path, "must be %s, not %s", want, kind(got))
}

func kind(v any) string {
	switch v.(type) {
	case nil:
		return "null"
	case bool:
		return "true or false"
	case string:
		return "a string"
	case []any:
		return "a list"
	case map[string]any:
		return "an object"
	}
	return "a number"
}

// clip quotes a client's text for an error, never more than a line of it.
func clip(text string) string {
	if r := []rune(text); len(r) > 40 {
		text = string(r[:40]) + "…"
	}
	return strconv.Quote(text)
}
