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
	var err error
	if s.openapi, err = json.Marshal(doc); err != nil {
		return err
	}
	s.docs, err = docsPage(doc, s.routes)
	return err
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
	o.Responses["default"] = &huma.Response{
		Description: "An error: " + strings.Join(codes(), ", "),
		Content: map[string]*huma.MediaType{"application/json": {
			Schema: schemas.Schema(reflect.TypeFor[sandbox.ErrorAnswer](), true, "ErrorAnswer"),
		}},
	}
	return o
}

func answerDoc(r route, schemas huma.Registry) *huma.Response {
	a := &huma.Response{Description: http.StatusText(r.status)}
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
