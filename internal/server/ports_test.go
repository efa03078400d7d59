package server_test

import (
	"net/http"
	"strconv"
	"testing"
)

func TestPortsHaveTheirRoutes(t *testing.T) {
	f := start(t, nil)
	made := f.call("POST", boxes, `{"language":"python","mode":"stateful"}`)
	f.wants("create", made, http.StatusCreated, "")
	ports := boxes + "/" + field[string](t, made, "id") + "/ports"
	opened := f.call("POST", ports, `{"guest_port":8000,"host_port":31000}`)
	f.wants("open", opened, http.StatusCreated, "")
	if field[int](t, opened, "guest_port") != 8000 || field[string](t, opened, "protocol") != "tcp" {
		t.Errorf("opened: %s", opened.body)
	}
	for body, code := range map[string]string{
		`{}`: "invalid_request", `{"guest_port":0}`: "invalid_request", `{"guest_port":65536}`: "invalid_request", `{"guest_port":1,"protocol":"sctp"}`: "invalid_request",
		`{"guest_port":1,"host_port":-1}`: "invalid_request", `{"guest_port":1,"x":1}`: "invalid_request",
	} {
		f.wants("open "+body, f.call("POST", ports, body), http.StatusUnprocessableEntity, code)
	}
	f.wants("close", f.call("DELETE", ports+"/8000", ""), http.StatusNoContent, "")
	f.wants("close by protocol", f.call("DELETE", ports+"/8000?protocol=udp", ""), http.StatusNoContent, "")
	f.wants("close by another", f.call("DELETE", ports+"/8000?protocol=sctp", ""), http.StatusUnprocessableEntity, "invalid_request")
	f.wants("close with an unknown parameter", f.call("DELETE", ports+"/8000?x=1", ""), http.StatusUnprocessableEntity, "invalid_request")
	for n := range 64 {
		f.wants("open one more", f.call("POST", ports, `{"guest_port":`+strconv.Itoa(n+1)+`}`), http.StatusCreated, "")
	}
	f.wants("open one too many", f.call("POST", ports, `{"guest_port":100}`), http.StatusTooManyRequests, "quota_exceeded")
	brief := f.call("POST", boxes, `{"language":"python"}`)
	ports = boxes + "/" + field[string](t, brief, "id") + "/ports"
	f.wants("open of an ephemeral one", f.call("POST", ports, `{"guest_port":8000}`), http.StatusConflict, "not_stateful")
	f.wants("close of an ephemeral one", f.call("DELETE", ports+"/8000", ""), http.StatusConflict, "not_stateful")
	f.wants("open of none", f.call("POST", boxes+"/sb_000000000000/ports", `{"guest_port":8000}`), http.StatusNotFound, "not_found")
	reader, _ := f.key("read", "default")
	f.wants("open by a reader", f.callAs(t.Context(), reader, "POST", ports, `{"guest_port":8000}`), http.StatusForbidden, "forbidden")
	f.wants("close by a reader", f.callAs(t.Context(), reader, "DELETE", ports+"/8000", ""), http.StatusForbidden, "forbidden")
}
