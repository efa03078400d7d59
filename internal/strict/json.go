// Package strict reads what comes from outside without guessing: every bad field is listed at once, in the contract's
// spelling, and a name that nothing knows is an error that tells the nearest one.
package strict

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
	"unicode/utf8"

	"outpost.run/outpost/sandbox"
)

// maxDepth bounds how deep a body may nest; the deepest of the contract has four levels.
const maxDepth = 64

// JSON decodes one JSON object into the struct that into points to. Fields must be pointers, slices or maps: null and
// left out both stay nil. The faults are what a client must mend, field by field.
//
// Errors: MalformedJSON, for a body that is no JSON text in UTF-8 or no object.
func JSON(body []byte, into any) (sandbox.Faults, error) {
	if !utf8.Valid(body) {
		return nil, malformed("the body is not UTF-8")
	}
	if loneSurrogate(body) {
		return nil, malformed("a \\u escape is half of a surrogate pair, which is no character")
	}
	if tooDeep(body) {
		return nil, malformed(fmt.Sprintf("the body nests deeper than %d levels", maxDepth))
	}
	var whole json.RawMessage
	if err := json.Unmarshal(body, &whole); err != nil {
		return nil, malformed("the body is not valid JSON: " + err.Error())
	}
	p := parser{dec: json.NewDecoder(bytes.NewReader(body))}
	p.dec.UseNumber()
	v := p.value("")
	object, is := v.(map[string]any)
	if !is {
		return nil, malformed("the body must be a JSON object")
	}
	d := decoder{faults: p.faults}
	d.object(object, reflect.ValueOf(into).Elem(), "")
	return d.faults, nil
}

func malformed(why string) error { return sandbox.Errorf(sandbox.MalformedJSON, nil, "%s", why) }

// tooDeep counts brackets outside strings, so that nesting is bounded before anything recurses into it.
func tooDeep(body []byte) bool {
	depth, text := 0, false
	for i := 0; i < len(body); i++ {
		switch c := body[i]; {
		case text && c == '\\':
			i++
		case c == '"':
			text = !text
		case text:
		case c == '{' || c == '[':
			if depth++; depth > maxDepth {
				return true
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return false
}

// loneSurrogate finds \uD800–\uDFFF escapes without their other half: encoding/json would replace them in silence.
func loneSurrogate(body []byte) bool {
	unit := func(i int) int64 {
		if i+6 > len(body) || body[i] != '\\' || body[i+1] != 'u' {
			return -1
		}
		n, err := strconv.ParseInt(string(body[i+2:i+6]), 16, 32)
		if err != nil {
			return -1
		}
		return n
	}
	for i := 0; i < len(body); i++ {
		if body[i] != '\\' {
			continue
		}
		n := unit(i)
		switch {
		case n >= 0xDC00 && n <= 0xDFFF:
			return true
		case n >= 0xD800 && n <= 0xDBFF:
			if low := unit(i + 6); low < 0xDC00 || low > 0xDFFF {
				return true
			}
			i += 11
		case n >= 0:
			i += 5
		default:
			i++ // the escaped character
		}
	}
	return false
}

// parser turns valid JSON into maps, slices, strings, json.Number, bool and nil, and notes names given twice.
type parser struct {
	dec    *json.Decoder
	faults sandbox.Faults
}

func (p *parser) value(path string) any {
	token, _ := p.dec.Token() // the text was checked before
	switch token {
	case json.Delim('{'):
		object := map[string]any{}
		for p.dec.More() {
			name, _ := p.dec.Token()
			key := name.(string)
			if _, twice := object[key]; twice {
				p.faults.Add(sandbox.Field(path, key), "is given twice")
			}
			object[key] = p.value(sandbox.Field(path, key))
		}
		_, _ = p.dec.Token()
		return object
	case json.Delim('['):
		list := []any{}
		for p.dec.More() {
			list = append(list, p.value(fmt.Sprintf("%s[%d]", path, len(list))))
		}
		_, _ = p.dec.Token()
		return list
	}
	return token
}
