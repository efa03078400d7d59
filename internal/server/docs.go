package server

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"html/template"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"
)

//go:embed docs.html
var docsHTML string

var docsTemplate = template.Must(template.New("docs").Parse(docsHTML))

// docsPage is the OpenAPI document for people: one page that loads nothing.
func docsPage(doc *huma.OpenAPI, routes []route) ([]byte, error) {
	type row struct {
		Method, Path, Role, Doc string
		*huma.Operation
	}
	type schema struct{ Name, JSON string }
	var rows []row
	for _, r := range routes {
		o := operation(r, doc.Components.Schemas)
		rows = append(rows, row{r.method, r.path, string(r.access.role), r.doc, o})
	}
	var schemas []schema
	for name, s := range doc.Components.Schemas.Map() {
		text, err := json.MarshalIndent(s, "", "  ")
		if err != nil {
			return nil, err
		}
		schemas = append(schemas, schema{name, string(text)})
	}
	slices.SortFunc(schemas, func(a, b schema) int { return strings.Compare(a.Name, b.Name) })
	var b bytes.Buffer
	err := docsTemplate.Execute(&b, map[string]any{"Info": doc.Info, "Rows": rows, "Schemas": schemas, "Codes": codes()})
	return b.Bytes(), err
}
