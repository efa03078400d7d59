package server

import (
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"outpost.run/outpost/sandbox"
)

// fileContent stands in for sandbox.FileContent, which travels in two forms.
type fileContent struct{}

// Schema says the two forms.
func (fileContent) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{OneOf: []*huma.Schema{
		{Type: huma.TypeString, Description: "text"},
		{
			Type: huma.TypeObject, Required: []string{"base64"}, AdditionalProperties: false,
			Properties: map[string]*huma.Schema{"base64": {Type: huma.TypeString, ContentEncoding: "base64"}},
		},
	}}
}

// describe makes the OpenAPI document and the page for people out of the table of routes.
func (s *Server) describe() error {
	schemas := huma.NewMapRegistry("#/components/schemas/", huma.DefaultSchemaNamer)
	schemas.RegisterTypeAlias(typeOf[sandbox.Time](), typeOf[time.Time]())
	schemas.RegisterTypeAlias(typeOf[sandbox.FileContent](), typeOf[fileContent]())
	doc := &huma.OpenAPI{
		OpenAPI: "3.1.0",
		Info: &huma.Info{
			Title: "outpost", Version: s.version,
			Description: "Runs programs that nobody trusts, each in a clean Linux machine of its own.",
		},
		Components: &huma.Components{Schemas: schemas, SecuritySchemes: map[string]*huma.SecurityScheme{
			"token":   {Type: "http", Scheme: "bearer"},
			"api_key": {Type: "apiKey", In: "header", Name: "Authorization", Description: "API-Key <name>$<secret>"},
		}},
	}
	for _, r := range s.routes {
		doc.AddOperation(operation(r, schemas))
	}
	sayNull(schemas)
	var err error
	if s.openapi, err = json.Marshal(doc); err != nil {
		return err
	}
	s.docs, err = docsPage(doc, s.routes)
	return err
}

// sayNull says of each field of an answer that may be null that it may: huma does so for words and numbers alone.
func sayNull(schemas huma.Registry) {
	for name, s := range schemas.Map() {
		t := schemas.TypeFromRef("#/components/schemas/" + name)
		if t == nil || t.Kind() != reflect.Struct {
			continue
		}
		for i := range t.NumField() {
			field := t.Field(i)
			name, options, _ := strings.Cut(field.Tag.Get("json"), ",")
			p := s.Properties[name]
			switch {
			case p == nil || field.Type.Kind() != reflect.Pointer || strings.Contains(options, "omitempty"):
			case p.Ref != "":
				s.Properties[name] = &huma.Schema{Description: p.Description, AnyOf: []*huma.Schema{{Ref: p.Ref}, {Type: "null"}}}
			default:
				p.Nullable = true
			}
		}
	}
}

func operation(r route, schemas huma.Registry) *huma.Operation {
	o := &huma.Operation{
		Method: r.method, Path: r.path, Summary: r.summary, OperationID: operationID(r),
		Responses: map[string]*huma.Response{strconv.Itoa(r.status): answerDoc(r, schemas)},
	}
	for _, part := range strings.Split(r.path, "/") {
		if name, is := strings.CutPrefix(part, "{"); is {
			o.Parameters = append(o.Parameters, &huma.Param{Name: strings.TrimSuffix(name, "}"), In: "path", Required: true, Schema: &huma.Schema{Type: huma.TypeString}})
		}
	}
	for _, p := range r.params {
		schema := &huma.Schema{Type: huma.TypeString}
		for _, word := range p.enum {
			schema.Enum = append(schema.Enum, word)
		}
		if p.name == "page" || p.name == "per_page" {
			schema = &huma.Schema{Type: huma.TypeInteger}
		}
		o.Parameters = append(o.Parameters, &huma.Param{Name: p.name, In: "query", Description: p.doc, Schema: schema})
	}
	if r.idempotent {
		o.Parameters = append(o.Parameters, &huma.Param{
			Name: "Idempotency-Key", In: "header", Schema: &huma.Schema{Type: huma.TypeString},
			Description: "The same key and body within 24 hours get the first answer.",
		})
	}
	if r.takes != "" {
		o.RequestBody = &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{r.takes: {}}}
	}
	if r.request != nil {
		o.RequestBody = &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{
			"application/json": {Schema: schemas.Schema(r.request, true, r.request.Name())},
		}}
	}
	if !r.access.open {
		o.Security = []map[string][]string{{"token": {}}, {"api_key": {}}}
		o.Description = "Needs the role " + string(r.access.role) + " or one above it."
	}
	if r.doc != "" {
		o.Description += "\n\n" + r.doc
	}
	if r.live {
		o.Responses["201"] = &huma.Response{Description: "With background: the program has started", Content: map[string]*huma.MediaType{
			"application/json": {Schema: schemas.Schema(reflect.TypeFor[sandbox.ExecState](), true, "ExecState")},
		}}
	}
	o.Responses["default"] = &huma.Response{
		Headers:     headersDoc(errorHeaders),
		Description: "An error: " + strings.Join(codes(), ", "),
		Content: map[string]*huma.MediaType{"application/json": {
			Schema: schemas.Schema(reflect.TypeFor[sandbox.ErrorAnswer](), true, "ErrorAnswer"),
		}},
	}
	return o
}

func answerDoc(r route, schemas huma.Registry) *huma.Response {
	a := &huma.Response{Description: http.StatusText(r.status), Headers: headersDoc(r.headers)}
	switch {
	case r.page != nil:
		a.Content = map[string]*huma.MediaType{strings.Split(r.page.contentType, ";")[0]: {}}
	case r.direct != nil:
		a.Content = map[string]*huma.MediaType{"text/plain": {}}
	case r.media != "":
		a.Content = map[string]*huma.MediaType{r.media: {}}
	case r.stream != nil:
		a.Content = map[string]*huma.MediaType{"text/event-stream": {Schema: schemas.Schema(r.response, true, r.response.Name())}}
	case r.response != nil:
		a.Content = map[string]*huma.MediaType{"application/json": {Schema: schemas.Schema(r.response, true, r.response.Name())}}
		if r.live {
			a.Content["text/event-stream"] = &huma.MediaType{}
		}
	}
	return a
}

func headersDoc(all []param) map[string]*huma.Param {
	docs := map[string]*huma.Param{}
	for _, h := range all {
		docs[h.name] = &huma.Param{Description: h.doc, Schema: &huma.Schema{Type: huma.TypeString}}
	}
	return docs
}

// What the types of bodies don't tell.
var (
	errorHeaders = []param{
		{name: "X-Request-Id", doc: "by which the server's log tells of the call; every answer has one"},
		{name: "Retry-After", doc: "seconds after which to try again, where that may help: 429 and 503"},
	}
	outputHeaders = []param{
		{name: "X-Next-Offset", doc: "where to go on"},
		{name: "X-Finished", doc: "true: no more can come"},
		{name: "X-Total-Bytes", doc: "what the program has written; at the end more than X-Next-Offset where a part of it was not kept"},
		{name: "X-Attempt", doc: "the attempt whose output it is; give it as attempt to go on, and the next attempt's begins at 0"},
	}
	fileHeaders = []param{{name: "X-File-Mode", doc: "its permissions, octal"}}
)

const (
	execDoc = "With Accept: text/event-stream the answer is server-sent events, of which each has JSON as data: start {id, sandbox_id} when the program has started; " +
		"stdout and stderr {offset, text} as it writes, {offset, base64} with output_encoding base64; at last exit, the result without its output, or error, an error's body. " +
		"A comment comes each 15 s. What is refused before the program starts is an ordinary answer."
	jobDoc = "A failed attempt is repeated, up to max_attempts, after 1 s, doubled each time up to 5 minutes. When the job has ended it is posted to callback_url as GET of it answers, " +
		"with X-Outpost-Timestamp (Unix seconds) and X-Outpost-Signature: sha256= and, in hex, the HMAC-SHA256 of the timestamp, a dot and the body; its key is the text that jobs/callback_key answers. " +
		"Any 2xx is heard; else it is tried again, 20 times in some fifty minutes. No redirect is followed."
)

func operationID(r route) string {
	words := strings.FieldsFunc(strings.TrimPrefix(r.path, "/auth/v1/seed/{namespace}"), func(c rune) bool {
		return strings.ContainsRune("/{}.", c)
	})
	return strings.ToLower(fmt.Sprintf("%s_%s", r.method, strings.Join(words, "_")))
}

func codes() []string {
	var all []string
	for code := range statuses {
		all = append(all, string(code))
	}
	slices.Sort(all)
	return all
}
