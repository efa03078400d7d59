package server

import (
	"cmp"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"outpost.run/outpost/internal/service"
	"outpost.run/outpost/internal/strict"
	"outpost.run/outpost/sandbox"
)

const (
	defaultPerPage = 20
	maxPerPage     = 100
	maxPage        = 1_000_000
)

// param is one query parameter of a list.
type param struct {
	name string
	doc  string
	enum []string // nil: any text
	many bool     // it may be given more than once
}

// paging are the parameters that every list has.
func paging(sorts []string) []param {
	return []param{
		{name: "page", doc: "from 1"}, {name: "per_page", doc: "1 to 100; 20 unless given"},
		{name: "sort", doc: sorts[0] + " unless given", enum: sorts}, {name: "order", doc: "desc unless given", enum: []string{"asc", "desc"}},
	}
}

// readQuery refuses what the list does not take: unknown names, names given twice, words that it does not know.
func readQuery(raw string, known []param) (url.Values, sandbox.Faults) {
	var faults sandbox.Faults
	q, err := url.ParseQuery(raw)
	if err != nil {
		faults.Add("query", "is no valid query string")
	}
	names := make([]string, len(known))
	many := map[string]bool{}
	for i, p := range known {
		names[i], many[p.name] = p.name, p.many
		if v := q.Get(p.name); q.Has(p.name) && p.enum != nil && !slices.Contains(p.enum, v) {
			faults.Add(p.name, "must be one of %s", strings.Join(p.enum, ", "))
		}
	}
	for name, values := range q {
		switch {
		case !slices.Contains(names, name):
			reason := "is not known"
			if near := cmp.Or(strict.Nearest(name, names), elsewhere(name, names)); near != "" {
				reason += "; did you mean " + near + "?"
			}
			faults.Add(name, "%s", reason)
		case len(values) > 1 && !many[name]:
			faults.Add(name, "is given twice")
		}
	}
	return q, faults
}

// others is what other services' lists call what ours do.
var others = map[string]string{"limit": "per_page", "size": "per_page", "page_size": "per_page", "pagesize": "per_page", "count": "per_page", "top": "per_page", "sort_by": "sort", "direction": "order"}

// elsewhere is the known name of what others call so, or "".
func elsewhere(name string, known []string) string {
	if ours := others[strings.ToLower(name)]; slices.Contains(known, ours) {
		return ours
	}
	return ""
}

func readPaging(q url.Values, faults *sandbox.Faults) service.Paging {
	return service.Paging{
		Page:       readNumber(q, "page", 1, 1, maxPage, faults),
		PerPage:    readNumber(q, "per_page", defaultPerPage, 1, maxPerPage, faults),
		Sort:       q.Get("sort"),
		Descending: q.Get("order") != "asc",
	}
}

// readNumber reads an integer from least to most; unset where it is not given.
func readNumber(q url.Values, name string, unset, least, most int, faults *sandbox.Faults) int {
	if !q.Has(name) {
		return unset
	}
	n, err := strconv.Atoi(q.Get(name))
	if err != nil || n < least || n > most || q.Get(name)[0] == '+' {
		faults.Add(name, "must be an integer from %d to %d", least, most)
	}
	return n
}
