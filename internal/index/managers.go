package index

import (
	"encoding/json"
	"net/url"
	"strconv"
)

// Address inside the machine of what each manager is told to ask.
const (
	PipIndex    = self + "/pip/" // and the base's number
	NpmRegistry = self + "/npm/"
	GoProxy     = self + "/go"
	CargoIndex  = "sparse+" + self + "/cargo/"
)

// PipIndexes are the addresses of all bases.
func (u Upstream) PipIndexes() []string {
	var all []string
	for i := range u.Bases {
		all = append(all, PipIndex+strconv.Itoa(i)+"/")
	}
	return all
}

// relinked gives a JSON object with our address in the place of the index's, or none where that is no address, and
// without one field. The rest stays as it came: it may be large.
func (p *Proxy) relinked(object json.RawMessage, key, without string, at *url.URL) (json.RawMessage, error) {
	var all map[string]json.RawMessage
	if err := json.Unmarshal(object, &all); err != nil {
		return nil, err
	}
	delete(all, without)
	var text string
	_ = json.Unmarshal(all[key], &text) // what is no text is no address
	v, err := at.Parse(text)
	if text == "" || err != nil || v.Scheme != "http" && v.Scheme != "https" {
		delete(all, key)
		return json.Marshal(all)
	}
	return with(all, key, p.signed(v))
}

// with is a JSON object with one field replaced.
func with(object map[string]json.RawMessage, key string, value any) ([]byte, error) {
	b, err := json.Marshal(value)
	if err != nil {
		return nil, err
	}
	object[key] = b
	return json.Marshal(object)
}
