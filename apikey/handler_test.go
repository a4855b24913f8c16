package apikey_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/apikey"
	"github.com/usher-go/usher/clientip"
	"github.com/usher-go/usher/internal/compare"
)

// A console is the management API as one person uses it.
type console struct {
	t       *testing.T
	handler http.Handler
	store   apikey.Store
	as      *usher.Principal
}

func newConsole(t *testing.T, mc apikey.ManagerConfig, hc apikey.HandlerConfig) *console {
	t.Helper()
	if mc.Store == nil {
		mc.Store = apikey.NewMemory()
	}
	hc.Manager = newManager(t, mc)
	h, err := apikey.NewHandler(hc)
	if err != nil {
		t.Fatal(err)
	}
	return &console{t: t, handler: h, store: mc.Store, as: &usher.Principal{ID: "u1", Owner: "ann", Kind: usher.KindJWT}}
}

// do sends a request and returns the status and the decoded body.
func (c *console) do(method, target, body string) (int, map[string]any) {
	c.t.Helper()
	w := c.raw(method, target, body, "application/json")
	var v map[string]any
	if w.Body.Len() > 0 {
		if err := json.Unmarshal(w.Body.Bytes(), &v); err != nil {
			var list []any
			if err := json.Unmarshal(w.Body.Bytes(), &list); err != nil {
				c.t.Fatalf("%s %s: %v in %s", method, target, err, w.Body)
			}
			v = map[string]any{"list": list}
		}
	}
	if got := w.Header().Get("Cache-Control"); got != "no-store" {
		c.t.Errorf("%s %s: Cache-Control %q", method, target, got)
	}
	return w.Code, v
}

func (c *console) raw(method, target, body, contentType string) *httptest.ResponseRecorder {
	c.t.Helper()
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	if body != "" && contentType != "" {
		r.Header.Set("Content-Type", contentType)
	}
	if c.as != nil {
		r = usher.WithPrincipal(r, c.as)
	}
	w := httptest.NewRecorder()
	c.handler.ServeHTTP(w, r)
	return w
}

func (c *console) create(body string) (id, text string) {
	c.t.Helper()
	status, v := c.do("POST", "/", body)
	if status != 201 {
		c.t.Fatalf("create: %d %v", status, v)
	}
	return v["key"].(map[string]any)["id"].(string), v["api_key"].(string)
}

func TestHandlerReportsAllFaultsAtOnce(t *testing.T) {
	_, err := apikey.NewHandler(apikey.HandlerConfig{PageSize: -1, MaxBody: -1})
	if got := fieldsOf(err); len(got) != 3 {
		t.Errorf("faults %v, want 3", got)
	}
	if _, err := apikey.NewHandler(apikey.HandlerConfig{Manager: newManager(t, apikey.ManagerConfig{MaxGrace: time.Hour}), Grace: 2 * time.Hour}); err == nil {
		t.Error("a grace above the maximum is accepted")
	}
}

func TestAKeyFromCreationToRevocation(t *testing.T) {
	c := newConsole(t, apikey.ManagerConfig{}, apikey.HandlerConfig{Grace: time.Hour})
	c.as = &usher.Principal{ID: "u1", Owner: "ann", Kind: usher.KindJWT, Scopes: []string{"read", "write"}, Level: usher.LevelFull}
	expires := time.Now().Add(24 * time.Hour).UTC().Truncate(time.Second)
	id, text := c.create(`{"name":"ci","scopes":["read"],"level":"read_only","environment":"test","expires_at":"` + expires.Format(time.RFC3339) + `"}`)
	auth := newAuthenticator(t, apikey.ManagerConfig{Store: c.store}, apikey.Config{})
	if p, err := auth.Authenticate(request("X-API-Key", text)); err != nil || p.ID != id || p.Owner != "ann" {
		t.Fatalf("%+v, %v", p, err)
	}

	status, got := c.do("GET", "/"+id, "")
	created := got["created_at"]
	want := map[string]any{
		"id": id, "name": "ci", "prefix": text[:14], "last_four": text[len(text)-4:], "scopes": []any{"read"}, "level": "read_only",
		"environment": "test", "created_at": created, "updated_at": created, "expires_at": expires.Format(time.RFC3339),
		"revoked_at": nil, "last_used_at": nil, "replaced_by": nil, "description": nil, "allowed_networks": []any{},
		"created_by": "jwt:u1", "disabled_at": nil, "last_used_from": nil, "derived_from": nil,
	}
	if diff := compare.Diff(want, got); status != 200 || diff != "" {
		t.Errorf("find: %d %s", status, diff)
	}

	status, got = c.do("PATCH", "/"+id, `{"name":"build","scopes":["write"],"level":"full","expires_at":null}`)
	want["name"], want["scopes"], want["level"], want["expires_at"] = "build", []any{"write"}, "full", nil
	want["updated_at"] = got["updated_at"]
	if diff := compare.Diff(want, got); status != 200 || diff != "" {
		t.Errorf("update: %d %s", status, diff)
	}
	status, got = c.do("PATCH", "/"+id, `{}`)
	if status != 400 || got["code"] != usher.CodeValidationFailed || got["detail"] != "The request body must have at least one field." {
		t.Errorf("update of nothing: %d %v", status, got)
	}
	if _, now := c.do("GET", "/"+id, ""); now["updated_at"] != want["updated_at"] {
		t.Errorf("an update of nothing has changed the key: %v", now)
	}

	status, got = c.do("POST", "/"+id+"/rotate", `{"grace_seconds":60}`)
	if status != 201 {
		t.Fatalf("rotate: %d %v", status, got)
	}
	next := got["key"].(map[string]any)
	for _, key := range []string{text, got["api_key"].(string)} {
		if _, err := auth.Authenticate(request("X-API-Key", key)); err != nil {
			t.Errorf("during the grace: %v", err)
		}
	}
	if _, old := c.do("GET", "/"+id, ""); old["replaced_by"] != next["id"] || old["expires_at"] == nil {
		t.Errorf("the old key: %v", old)
	}

	_, list := c.do("GET", "/", "")
	if keys := list["list"].([]any); len(keys) != 2 || keys[0].(map[string]any)["id"] != next["id"] {
		t.Errorf("list: %v", list)
	}
	if w := c.raw("HEAD", "/", "", ""); w.Code != 200 {
		t.Errorf("HEAD: %d", w.Code)
	}

	for range 2 {
		if status, got = c.do("DELETE", "/"+next["id"].(string), ""); status != 204 || got != nil {
			t.Errorf("revoke: %d %v", status, got)
		}
	}
	if _, err := auth.Authenticate(request("X-API-Key", got0(t, c, next["id"].(string)))); err == nil {
		t.Error("a display prefix authenticates")
	}
	if status, _ = c.do("POST", "/"+next["id"].(string)+"/rotate", ""); status != 409 {
		t.Errorf("rotate a revoked key: %d", status)
	}
	if status, _ = c.do("PATCH", "/"+next["id"].(string), `{"name":"x"}`); status != 409 {
		t.Errorf("update a revoked key: %d", status)
	}
}

func got0(t *testing.T, c *console, id string) string {
	t.Helper()
	_, k := c.do("GET", "/"+id, "")
	if k["revoked_at"] == nil {
		t.Errorf("%v is not revoked", k)
	}
	return k["prefix"].(string) + k["last_four"].(string)
}

func TestWrongRequestsAreRefusedWithReasons(t *testing.T) {
	c := newConsole(t, apikey.ManagerConfig{}, apikey.HandlerConfig{})
	id, _ := c.create(`{"name":"x"}`)
	for _, test := range []struct {
		name, method, target, body string
		status                     int
		fields                     string // names of the faulty fields
	}{
		{"KS-15 empty name", "POST", "/", `{"name":""}`, 400, "name"},
		{"KS-15 81 characters", "POST", "/", `{"name":"` + strings.Repeat("x", 81) + `"}`, 400, "name"},
		{"KS-15 no name", "POST", "/", `{}`, 400, "name"},
		{"KS-15 null name", "POST", "/", `{"name":null}`, 400, "name"},
		{"KS-15 name is a number", "POST", "/", `{"name":7}`, 400, "name"},
		{"everything at once", "POST", "/", `{"name":7,"scopes":"a","level":"god","environment":1,"expires_at":"soon","owner":"bob","id":"x"}`, 400, "name scopes level expires_at environment id owner"},
		{"owner in the body", "POST", "/", `{"name":"x","owner":"bob"}`, 400, "owner"},
		{"plan in the body", "POST", "/", `{"name":"x","plan":"enterprise"}`, 400, "plan"},
		{"no network", "POST", "/", `{"name":"x","allowed_networks":["office"]}`, 400, "allowed_networks"},
		{"an empty network", "POST", "/", `{"name":"x","allowed_networks":[""]}`, 400, "allowed_networks"},
		{"a null network", "POST", "/", `{"name":"x","allowed_networks":[null]}`, 400, "allowed_networks"},
		{"null networks", "PATCH", "/" + id, `{"allowed_networks":null}`, 400, "allowed_networks"},
		{"a network with a zone", "PATCH", "/" + id, `{"allowed_networks":["fe80::1%eth0"]}`, 400, "allowed_networks"},
		{"a network of too many bits", "PATCH", "/" + id, `{"allowed_networks":["192.0.2.0/33"]}`, 400, "allowed_networks"},
		{"more networks than a key may have", "PATCH", "/" + id, `{"allowed_networks":[` + quotedAddresses(51) + `]}`, 400, "allowed_networks"},
		{"disabled as a word", "PATCH", "/" + id, `{"disabled":"true"}`, 400, "disabled"},
		{"disabled null", "PATCH", "/" + id, `{"disabled":null}`, 400, "disabled"},
		{"disabled from the start", "POST", "/", `{"name":"x","disabled":true}`, 400, "disabled"},
		{"a null description", "PATCH", "/" + id, `{"description":null}`, 400, "description"},
		{"a description of blanks", "PATCH", "/" + id, `{"description":" "}`, 400, "description"},
		{"a new environment", "PATCH", "/" + id, `{"environment":"test"}`, 400, "environment"},
		{"nothing to change", "PATCH", "/" + id, `{}`, 400, ""},
		{"another case", "POST", "/", `{"Name":"x"}`, 400, "name Name"},
		{"null scopes", "POST", "/", `{"name":"x","scopes":null}`, 400, "scopes"},
		{"null level", "PATCH", "/" + id, `{"level":null}`, 400, "level"},
		{"unknown environment", "POST", "/", `{"name":"x","environment":"prod"}`, 400, "environment"},
		{"expired already", "POST", "/", `{"name":"x","expires_at":"2020-01-01T00:00:00Z"}`, 400, "expires_at"},
		{"no body", "POST", "/", ``, 400, ""},
		{"no object", "POST", "/", `["name"]`, 400, ""},
		{"null", "POST", "/", ` null`, 400, ""},
		{"data after the object", "POST", "/", `{"name":"x"}{}`, 400, ""},
		{"cut short", "POST", "/", `{"name":"x"`, 400, ""},
		{"too long", "POST", "/", `{"name":"` + strings.Repeat("x", 16<<10) + `"}`, 413, ""},
		{"negative grace", "POST", "/" + id + "/rotate", `{"grace_seconds":-1}`, 400, "grace_seconds"},
		{"long grace", "POST", "/" + id + "/rotate", `{"grace_seconds":604801}`, 400, "grace_seconds"},
		{"endless grace", "POST", "/" + id + "/rotate", `{"grace_seconds":99999999999}`, 400, "grace_seconds"},
		{"half a second", "POST", "/" + id + "/rotate", `{"grace_seconds":0.5}`, 400, "grace_seconds"},
		{"page 0", "GET", "/?page=0", ``, 400, "page"},
		{"negative page and no limit", "GET", "/?page=-1&limit=x", ``, 400, "page limit"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c.t = t
			status, got := c.do(test.method, test.target, test.body)
			var fields []string
			for _, f := range asList(got["errors"]) {
				fields = append(fields, f.(map[string]any)["field"].(string))
			}
			if status != test.status || strings.Join(fields, " ") != test.fields {
				t.Errorf("%d %v, want %d %s", status, fields, test.status, test.fields)
			}
			if status == 400 && got["code"] != "validation_failed" {
				t.Errorf("code %v", got["code"])
			}
		})
	}
	c.t = t
	if _, list := c.do("GET", "/", ""); len(list["list"].([]any)) != 1 {
		t.Errorf("a refused request has made a key: %v", list)
	}
	for _, contentType := range []string{"text/plain", "application/x-www-form-urlencoded", "", "application/json;;"} {
		if w := c.raw("POST", "/", `{"name":"x"}`, contentType); w.Code != 415 {
			t.Errorf("Content-Type %q: %d", contentType, w.Code)
		}
	}
	if w := c.raw("POST", "/", `{"name":"x"}`, "application/json; charset=utf-8"); w.Code != 201 {
		t.Errorf("with a charset: %d", w.Code)
	}
}

func quotedAddresses(n int) string {
	var list []string
	for i := range n {
		list = append(list, `"192.0.2.`+strconv.Itoa(i)+`"`)
	}
	return strings.Join(list, ",")
}

func asList(v any) []any {
	list, _ := v.([]any)
	return list
}

func TestUnknownFieldsAreNotEchoedWithoutBound(t *testing.T) {
	c := newConsole(t, apikey.ManagerConfig{}, apikey.HandlerConfig{})
	body := map[string]int{}
	for i := range 1000 {
		body[strconv.Itoa(i)] = i
	}
	text, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	if _, got := c.do("POST", "/", string(text)); len(asList(got["errors"])) != 20 {
		t.Errorf("%d errors", len(asList(got["errors"])))
	}
}

func TestUnknownRoutesAndMethods(t *testing.T) {
	c := newConsole(t, apikey.ManagerConfig{}, apikey.HandlerConfig{})
	for _, test := range []struct {
		method, target string
		status         int
		allow          string
	}{
		{"PUT", "/", 405, "GET, HEAD, POST"}, {"OPTIONS", "/", 405, "GET, HEAD, POST"}, {"POST", "/x", 405, "DELETE, GET, HEAD, PATCH"},
		{"GET", "/x/rotate", 405, "POST"}, {"HEAD", "/x/rotate", 405, "POST"}, {"GET", "/x/y", 404, ""}, {"POST", "/x/rotate/", 404, ""}, {"GET", "//", 404, ""},
		{"GET", "/x/", 404, ""}, {"GET", "/%2F", 404, ""},
	} {
		w := c.raw(test.method, test.target, "", "")
		if w.Code != test.status || w.Header().Get("Allow") != test.allow {
			t.Errorf("%s %s: %d, Allow %q", test.method, test.target, w.Code, w.Header().Get("Allow"))
		}
		if got := w.Header().Get("Content-Type"); got != "application/problem+json" {
			t.Errorf("%s %s: %s", test.method, test.target, got)
		}
	}
}

func TestHandlerCanBeMountedAnywhere(t *testing.T) {
	c := newConsole(t, apikey.ManagerConfig{}, apikey.HandlerConfig{})
	mux := http.NewServeMux()
	h := http.StripPrefix("/v1/api-keys", c.handler)
	mux.Handle("/v1/api-keys", h)
	mux.Handle("/v1/api-keys/", h)
	c.handler = mux
	id := ""
	for _, collection := range []string{"/v1/api-keys", "/v1/api-keys/"} {
		status, v := c.do("POST", collection, `{"name":"x"}`)
		if status != 201 {
			t.Fatalf("%s: %d %v", collection, status, v)
		}
		id = v["key"].(map[string]any)["id"].(string)
		if status, _ := c.do("GET", collection, ""); status != 200 {
			t.Errorf("%s: %d", collection, status)
		}
	}
	if status, _ := c.do("POST", "/v1/api-keys/"+id+"/rotate", ""); status != 201 {
		t.Errorf("rotate: %d", status)
	}
	if status, _ := c.do("DELETE", "/v1/api-keys/"+id, ""); status != 204 {
		t.Errorf("revoke: %d", status)
	}
}

func TestOnlyPeopleManageTheirOwnKeys(t *testing.T) {
	c := newConsole(t, apikey.ManagerConfig{}, apikey.HandlerConfig{})
	id, _ := c.create(`{"name":"x"}`)

	c.as = &usher.Principal{ID: "u2", Owner: "bob", Kind: usher.KindJWT}
	for _, key := range []string{id, "unknown"} {
		for _, call := range []struct{ method, target, body string }{
			{"GET", "/" + key, ""}, {"DELETE", "/" + key, ""}, {"PATCH", "/" + key, `{"name":"y"}`}, {"POST", "/" + key + "/rotate", ""},
		} {
			status, got := c.do(call.method, call.target, call.body)
			if status != 404 || got["code"] != usher.CodeAPIKeyNotFound || got["detail"] != "API key not found." {
				t.Errorf("%s %s: %d %v", call.method, call.target, status, got)
			}
		}
	}
	if _, list := c.do("GET", "/", ""); len(list["list"].([]any)) != 0 {
		t.Errorf("list: %v", list)
	}

	c.as = nil
	if status, got := c.do("GET", "/", ""); status != 401 || got["code"] != usher.CodeMissingCredential {
		t.Errorf("KS-10 no principal: %d %v", status, got)
	}
	c.as = &usher.Principal{ID: "k1", Owner: "ann", Kind: usher.KindAPIKey, Level: usher.LevelFull}
	if status, got := c.do("POST", "/", `{"name":"x"}`); status != 403 || got["code"] != usher.CodeWrongCredentialKind {
		t.Errorf("KS-10 an API key: %d %v", status, got)
	}
	c.as = &usher.Principal{Kind: usher.KindJWT}
	if status, _ := c.do("GET", "/", ""); status != 403 {
		t.Errorf("a principal without an account: %d", status)
	}

	with := newConsole(t, apikey.ManagerConfig{}, apikey.HandlerConfig{DangerouslyAcceptAPIKeys: true})
	own, _ := create(t, newManager(t, apikey.ManagerConfig{Store: with.store}), apikey.Key{Level: usher.LevelReadOnly})
	with.as = &usher.Principal{ID: own.ID, Owner: "ann", Kind: usher.KindAPIKey, Level: usher.LevelReadOnly}
	if status, _ := with.do("POST", "/", `{"name":"x","level":"read_only"}`); status != 201 {
		t.Errorf("an API key that may: %d", status)
	}
	if status, got := with.do("POST", "/", `{"name":"x","level":"full"}`); status != 403 || got["code"] != usher.CodeInsufficientPermission {
		t.Errorf("a key that would mint a stronger one: %d %v", status, got)
	}
}

// A derived key is for one job, and its holder learns nothing of the other keys.
func TestADerivedKeySeesNoKeys(t *testing.T) {
	c := newConsole(t, apikey.ManagerConfig{}, apikey.HandlerConfig{DangerouslyAcceptAPIKeys: true})
	m := newManager(t, apikey.ManagerConfig{Store: c.store})
	parent, _ := create(t, m, apikey.Key{Owner: "ann"})
	k, _, err := m.Derive(t.Context(), server, "ann", parent.ID, apikey.Key{Name: "job"})
	if err != nil {
		t.Fatal(err)
	}
	for id, want := range map[string]int{parent.ID: 200, k.ID: 403} {
		c.as = &usher.Principal{ID: id, Owner: "ann", Kind: usher.KindAPIKey}
		for _, target := range []string{"/", "/" + parent.ID} {
			if status, got := c.do("GET", target, ""); status != want {
				t.Errorf("GET %s: %d %v, want %d", target, status, got, want)
			}
		}
	}
}

func TestTheLimitOfKeysIsA409(t *testing.T) {
	c := newConsole(t, apikey.ManagerConfig{MaxActive: 5}, apikey.HandlerConfig{})
	for range 5 {
		c.create(`{"name":"x"}`)
	}
	status, got := c.do("POST", "/", `{"name":"x"}`)
	if status != 409 || got["code"] != usher.CodeAPIKeyLimit || got["detail"] != "Maximum 5 active API keys allowed." {
		t.Errorf("%d %v", status, got)
	}
}

// Ending a key makes no room for another here, so the message must not say that there are
// too many active ones.
func TestAFullAccountIsA409OfItsOwn(t *testing.T) {
	c := newConsole(t, apikey.ManagerConfig{Store: fullStore{apikey.NewMemory()}}, apikey.HandlerConfig{})
	status, got := c.do("POST", "/", `{"name":"x"}`)
	if status != 409 || got["code"] != usher.CodeAPIKeyLimit || got["detail"] != "The account has as many API keys as may be stored, ended ones included." {
		t.Errorf("%d %v", status, got)
	}
}

func TestALimitOfOtherKeysIsNotThatOfActiveOnes(t *testing.T) {
	c := newConsole(t, apikey.ManagerConfig{MaxActive: 1, MaxDerived: 1}, apikey.HandlerConfig{Grace: time.Hour})
	id, _ := c.create(`{"name":"x"}`)
	c.do("POST", "/"+id+"/derive", `{"name":"x"}`)
	if status, got := c.do("POST", "/"+id+"/derive", `{"name":"x"}`); status != 409 || got["detail"] != "The account has as many derived API keys as allowed." {
		t.Errorf("derive: %d %v", status, got)
	}
	_, got := c.do("POST", "/"+id+"/rotate", "")
	next := got["key"].(map[string]any)["id"].(string)
	status, got := c.do("POST", "/"+next+"/rotate", "")
	if status != 409 || got["code"] != usher.CodeAPIKeyLimit || got["detail"] != "The account has as many replaced API keys as allowed." {
		t.Errorf("rotate: %d %v", status, got)
	}
}

// Where keys in their grace count as active ones, they may be none of those that are too many.
func TestALimitOfAllWorkingKeysIsThatOfActiveOnes(t *testing.T) {
	c := newConsole(t, apikey.ManagerConfig{MaxActive: 1, CountReplaced: true}, apikey.HandlerConfig{Grace: time.Hour})
	id, _ := c.create(`{"name":"x"}`)
	if status, got := c.do("POST", "/"+id+"/rotate", ""); status != 409 || got["detail"] != "Maximum 1 active API keys allowed." {
		t.Errorf("with a grace: %d %v", status, got)
	}
	if status, got := c.do("POST", "/"+id+"/rotate", `{"grace_seconds":0}`); status != 201 {
		t.Errorf("without: %d %v", status, got)
	}
}

// A fullStore has no room for a further key.
type fullStore struct{ *apikey.Memory }

func (fullStore) Insert(context.Context, apikey.Record, apikey.Limits) error { return apikey.ErrFull }

func TestManagementStoreThatFailsIs503(t *testing.T) {
	s := newScripted(t, 0)
	s.revoke = func() error { return errors.New("hunter2") }
	c := newConsole(t, apikey.ManagerConfig{Store: s}, apikey.HandlerConfig{})
	id, _ := c.create(`{"name":"x"}`)
	w := c.raw("DELETE", "/"+id, "", "")
	if w.Code != 503 || w.Header().Get("Retry-After") != "1" || strings.Contains(w.Body.String(), "hunter2") {
		t.Errorf("%d %v %s", w.Code, w.Header(), w.Body)
	}
}

func TestTheActorOfARequestIsItsCallerAndAddress(t *testing.T) {
	var events []apikey.Event
	c := newConsole(t,
		apikey.ManagerConfig{
			Audit: func(_ context.Context, e apikey.Event) { events = append(events, e) },
			Change: func(_ context.Context, _ apikey.Actor, _, k *apikey.Key) error {
				k.Level = usher.LevelReadWrite
				return nil
			},
		},
		apikey.HandlerConfig{
			Principal: func(*http.Request) (usher.Principal, error) {
				return usher.Principal{ID: "u1", Owner: "zoe", Level: usher.LevelFull}, nil
			},
		})
	c.as = nil
	client := netip.MustParseAddr("203.0.113.9")
	own := c.handler
	c.handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { own.ServeHTTP(w, clientip.WithAddr(r, client)) })
	c.create(`{"name":"x"}`)
	if len(events) != 1 || events[0].Actor.Address != client || events[0].Actor.Principal.ID != "u1" || events[0].Owner != "zoe" {
		t.Errorf("%+v", events)
	}
	if _, list := c.do("GET", "/", ""); list["list"].([]any)[0].(map[string]any)["level"] != "read_write" {
		t.Errorf("%v", list)
	}
	refusing := newConsole(t, apikey.ManagerConfig{
		Change: func(context.Context, apikey.Actor, *apikey.Key, *apikey.Key) error {
			return &usher.Error{Status: 402, Code: "pay"}
		},
	}, apikey.HandlerConfig{})
	if status, got := refusing.do("POST", "/", `{"name":"x"}`); status != 402 || got["code"] != "pay" {
		t.Errorf("%d %v", status, got)
	}
}

// respondWith notes the replies that a handler gives to the envelope.
type respondWith struct{ reply *usher.Reply }

func (p respondWith) WriteError(w http.ResponseWriter, _ *http.Request, e *usher.Error) {
	w.WriteHeader(e.Status)
}

func (p respondWith) WriteReply(w http.ResponseWriter, _ *http.Request, reply usher.Reply) {
	*p.reply = reply
	w.WriteHeader(reply.Status)
}

// Without an envelope, the total is in the header field that clients of plain lists read.
func TestABareListHasItsTotal(t *testing.T) {
	c := newConsole(t, apikey.ManagerConfig{}, apikey.HandlerConfig{PageSize: 2})
	for range 5 {
		c.create(`{"name":"x"}`)
	}
	for _, method := range []string{"GET", "HEAD"} {
		if w := c.raw(method, "/?page=2", "", ""); w.Header().Get("X-Total-Count") != "5" {
			t.Errorf("%s: %d %v", method, w.Code, w.Header())
		}
	}
}

func TestPagesAreReported(t *testing.T) {
	c := newConsole(t, apikey.ManagerConfig{}, apikey.HandlerConfig{PageSize: 2, MaxPageSize: 3})
	for range 7 {
		c.create(`{"name":"x"}`)
	}
	unpaged := newConsole(t, apikey.ManagerConfig{Store: c.store}, apikey.HandlerConfig{PageSize: 2, MaxPageSize: 3, Unpaged: true})
	for _, test := range []struct {
		handler http.Handler
		query   string
		items   int
		page    *usher.Page
	}{
		{c.handler, "", 2, &usher.Page{Number: 1, Limit: 2, Total: 7}},
		{c.handler, "?page=4", 1, &usher.Page{Number: 4, Limit: 2, Total: 7}},
		{c.handler, "?page=5", 0, &usher.Page{Number: 5, Limit: 2, Total: 7}},
		{c.handler, "?limit=3&page=2", 3, &usher.Page{Number: 2, Limit: 3, Total: 7}},
		{c.handler, "?limit=101", 3, &usher.Page{Number: 1, Limit: 3, Total: 7}},
		{c.handler, "?page=99999999999999999999999", 0, &usher.Page{Number: 1 << 20, Limit: 2, Total: 7}},
		{unpaged.handler, "?page=2", 7, nil},
	} {
		var reply usher.Reply
		r := usher.WithResponder(httptest.NewRequest("GET", "/"+test.query, nil), respondWith{&reply})
		test.handler.ServeHTTP(httptest.NewRecorder(), usher.WithPrincipal(r, c.as))
		if items, _ := reply.Data.([]any); len(items) != test.items || !compare.Equal(reply.Page, test.page) || reply.Code != "api_keys_listed" {
			t.Errorf("%q: %d items, %+v, %s", test.query, len(items), reply.Page, reply.Code)
		}
	}
}

// Kisara's shapes, KS-14 and KS-16, in a few lines.
func TestViewsOfKisara(t *testing.T) {
	type item struct {
		ID        string     `json:"id"`
		Name      string     `json:"name"`
		KeyID     string     `json:"key_id"`
		LastFour  string     `json:"last_four"`
		ExpiresAt *time.Time `json:"expires_at"`
	}
	keyID := func(k apikey.Key) string { return strings.TrimPrefix(k.Prefix, "ksr_"+k.Environment+"_") }
	c := newConsole(t, apikey.ManagerConfig{Format: split}, apikey.HandlerConfig{
		Unpaged: true,
		IssuedView: func(k apikey.Key, s apikey.Secret) any {
			return map[string]any{"api_key": s.Reveal(), "key": map[string]any{"name": k.Name, "key_id": keyID(k), "last_four": k.LastFour, "key_type": k.Environment}}
		},
		ListView: func(keys []apikey.Key) any {
			items := []item{}
			for _, k := range keys {
				items = append(items, item{ID: k.ID, Name: k.Name, KeyID: keyID(k), LastFour: k.LastFour})
			}
			return map[string]any{"items": items}
		},
	})
	status, got := c.do("POST", "/", `{"name":"x"}`)
	text, _ := got["api_key"].(string)
	if status != 201 || len(text) != 69 {
		t.Fatalf("%d %v", status, got)
	}
	want := map[string]any{"api_key": text, "key": map[string]any{"name": "x", "key_id": text[9:25], "last_four": text[65:], "key_type": "live"}}
	if diff := compare.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	w := c.raw("GET", "/", "", "")
	if !strings.HasPrefix(w.Body.String(), `{"items":[{"id":"`) || !strings.HasSuffix(w.Body.String(), `"key_id":"`+text[9:25]+`","last_four":"`+text[65:]+`","expires_at":null}]}`) {
		t.Error(w.Body)
	}
}

// The text of a key is in the two responses that issue it and nowhere else.
func TestTheTextOfAKeyIsShownOnce(t *testing.T) {
	c := newConsole(t, apikey.ManagerConfig{}, apikey.HandlerConfig{})
	id, text := c.create(`{"name":"x"}`)
	_, rotated := c.do("POST", "/"+id+"/rotate", `{"grace_seconds":9}`)
	next := rotated["key"].(map[string]any)["id"].(string)
	var shown bytes.Buffer
	for _, call := range []struct{ method, target, body string }{
		{"GET", "/", ""}, {"GET", "/" + id, ""}, {"GET", "/" + next, ""}, {"PATCH", "/" + next, `{"name":"y"}`},
		{"DELETE", "/" + id, ""}, {"DELETE", "/" + next, ""}, {"POST", "/" + next + "/rotate", ""},
	} {
		w := c.raw(call.method, call.target, call.body, "application/json")
		shown.Write(w.Body.Bytes())
	}
	for _, text := range []string{text, rotated["api_key"].(string)} {
		if strings.Contains(shown.String(), text[14:20]) || strings.Contains(shown.String(), text[40:]) {
			t.Errorf("%q is shown again in %s", text, shown.String())
		}
	}
}

func FuzzHandlerBody(f *testing.F) {
	f.Add([]byte(`{"name":"x","scopes":["a"],"level":"full","expires_at":"2030-01-01T00:00:00Z"}`))
	f.Add([]byte(`{"name":null,"":{}}`))
	f.Add([]byte(`null`))
	m, err := apikey.NewManager(apikey.ManagerConfig{Store: apikey.NewMemory(), Format: native, MaxActive: 1 << 30})
	if err != nil {
		f.Fatal(err)
	}
	h, err := apikey.NewHandler(apikey.HandlerConfig{Manager: m})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		r := httptest.NewRequest("POST", "/", bytes.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, usher.WithPrincipal(r, &usher.Principal{ID: "u1", Owner: "ann", Level: usher.LevelReadOnly}))
		if !json.Valid(w.Body.Bytes()) {
			t.Errorf("no JSON: %q", w.Body)
		}
		switch w.Code {
		case 201:
			var v struct{ Name *string }
			if err := json.Unmarshal(body, &v); err != nil || v.Name == nil {
				t.Errorf("%q has made a key", body)
			}
		case 400, 403, 413:
		default:
			t.Errorf("%q: %d", body, w.Code)
		}
	})
}

// A plain form of another site can send a POST without a body, with the cookie of the
// session of the person who sees it.
func TestAFormOfAnotherSiteCannotRotateAKey(t *testing.T) {
	c := newConsole(t, apikey.ManagerConfig{}, apikey.HandlerConfig{})
	id, _ := c.create(`{"name":"x"}`)
	rotate := func(field, value string) *httptest.ResponseRecorder {
		r := httptest.NewRequest("POST", "/"+id+"/rotate", http.NoBody)
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set(field, value)
		w := httptest.NewRecorder()
		c.handler.ServeHTTP(w, usher.WithPrincipal(r, c.as))
		return w
	}
	if w := rotate("Sec-Fetch-Site", "cross-site"); w.Code != 403 || !strings.Contains(w.Body.String(), usher.CodeCrossOriginRequest) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if _, k := c.do("GET", "/"+id, ""); k["replaced_by"] != nil {
		t.Errorf("the key is replaced: %v", k)
	}
	if w := rotate("User-Agent", "curl/8"); w.Code != 201 {
		t.Errorf("a program: %d %s", w.Code, w.Body)
	}
}

func TestAmbiguousBodiesAreRefused(t *testing.T) {
	c := newConsole(t, apikey.ManagerConfig{}, apikey.HandlerConfig{Level: usher.LevelFull})
	for _, body := range []string{
		`{"name":"x","level":"none","level":"full"}`,
		`{"name":"x","name":"y"}`,
		`{"name":"x","\u006eame":"y"}`,
		"{\"name\":\"a\xff\"}",
		`{"name":"a\ud800"}`,
		`{"name":"a\u0000"}`,
	} {
		if status, got := c.do("POST", "/", body); status != 400 || got["code"] != usher.CodeValidationFailed {
			t.Errorf("%s: %d %v", body, status, got)
		}
	}
	if _, list := c.do("GET", "/", ""); len(list["list"].([]any)) > 0 {
		t.Errorf("a refused request has made a key: %v", list)
	}
}

func TestSettingsOfAKeyThroughTheHandler(t *testing.T) {
	c := newConsole(t, apikey.ManagerConfig{}, apikey.HandlerConfig{})
	status, got := c.do("POST", "/", `{"name":"x","description":"nightly\nexport","allowed_networks":["192.0.2.7/24","2001:db8::1","::ffff:198.51.100.1"]}`)
	if status != 201 {
		t.Fatalf("%d %v", status, got)
	}
	k := got["key"].(map[string]any)
	id := k["id"].(string)
	want := []any{"192.0.2.0/24", "2001:db8::1/128", "198.51.100.1/32"}
	if diff := compare.Diff(want, k["allowed_networks"]); diff != "" || k["description"] != "nightly\nexport" {
		t.Errorf("%v %s", k, diff)
	}
	text := got["api_key"].(string)
	auth := newAuthenticator(t, apikey.ManagerConfig{Store: c.store}, apikey.Config{})
	from := func(addr string) error {
		_, err := auth.Authenticate(clientip.WithAddr(request("X-API-Key", text), netip.MustParseAddr(addr)))
		return err
	}
	if err := from("192.0.2.99"); err != nil {
		t.Error(err)
	}
	if from("203.0.113.1") == nil {
		t.Error("accepted from another network")
	}

	_, got = c.do("PATCH", "/"+id, `{"allowed_networks":[],"description":""}`)
	if len(got["allowed_networks"].([]any)) != 0 || got["description"] != nil || from("203.0.113.1") != nil {
		t.Errorf("%v", got)
	}
	_, got = c.do("PATCH", "/"+id, `{"disabled":true}`)
	since := got["disabled_at"]
	if since == nil || from("192.0.2.99") == nil {
		t.Errorf("disabled: %v", got)
	}
	if _, got = c.do("PATCH", "/"+id, `{"disabled":true,"name":"y"}`); got["disabled_at"] != since || got["name"] != "y" {
		t.Errorf("disabled again: %v", got)
	}
	if _, got = c.do("PATCH", "/"+id, `{"disabled":false}`); got["disabled_at"] != nil || from("192.0.2.99") != nil {
		t.Errorf("enabled: %v", got)
	}
}

// What the service has stored about a key is not for its owner.
func TestMetadataIsNeitherReadNorShown(t *testing.T) {
	c := newConsole(t, apikey.ManagerConfig{}, apikey.HandlerConfig{})
	k, _ := create(t, newManager(t, apikey.ManagerConfig{Store: c.store}), apikey.Key{Metadata: map[string]string{"margin": "hunter2"}})
	for _, call := range []struct{ method, target, body string }{
		{"GET", "/" + k.ID, ""}, {"GET", "/", ""}, {"PATCH", "/" + k.ID, `{"name":"y"}`}, {"POST", "/" + k.ID + "/rotate", `{"grace_seconds":9}`},
	} {
		if w := c.raw(call.method, call.target, call.body, "application/json"); w.Code >= 300 || strings.Contains(w.Body.String(), "hunter2") || strings.Contains(w.Body.String(), "metadata") {
			t.Errorf("%s %s: %d %s", call.method, call.target, w.Code, w.Body)
		}
	}
	for _, method := range []string{"POST", "PATCH"} {
		target := map[string]string{"POST": "/", "PATCH": "/" + k.ID}[method]
		if status, _ := c.do(method, target, `{"name":"x","metadata":{"margin":"0"}}`); status != 400 {
			t.Errorf("%s: %d", method, status)
		}
	}
}

func TestAKeyIsDerivedThroughTheHandler(t *testing.T) {
	c := newConsole(t, apikey.ManagerConfig{}, apikey.HandlerConfig{Level: usher.LevelFull, Scopes: []string{"read", "write"}})
	parent, _ := c.create(`{"name":"ci","scopes":["read"],"level":"read_write"}`)
	status, got := c.do("POST", "/"+parent+"/derive", `{"name":"job 7","scopes":["read"],"level":"read_only","allowed_networks":["192.0.2.0/24"]}`)
	if status != 201 || got["api_key"] == "" {
		t.Fatalf("%d %v", status, got)
	}
	child := got["key"].(map[string]any)
	if child["derived_from"] != parent || child["level"] != "read_only" || child["expires_at"] == nil {
		t.Errorf("%v", child)
	}
	for name, test := range map[string]struct {
		target, body string
		status       int
	}{
		"more scopes":      {parent, `{"name":"x","scopes":["write"]}`, 403},
		"a higher level":   {parent, `{"name":"x","level":"full"}`, 403},
		"without a body":   {parent, ``, 400},
		"without a name":   {parent, `{}`, 400},
		"an environment":   {parent, `{"name":"x","environment":"test"}`, 400},
		"an unknown key":   {"unknown", `{"name":"x"}`, 404},
		"of a derived key": {child["id"].(string), `{"name":"x"}`, 409},
	} {
		if status, got := c.do("POST", "/"+test.target+"/derive", test.body); status != test.status {
			t.Errorf("%s: %d %v", name, status, got)
		}
	}
	if w := c.raw("GET", "/"+parent+"/derive", "", ""); w.Code != 405 || w.Header().Get("Allow") != "POST" {
		t.Errorf("GET: %d", w.Code)
	}
}

func TestALineIsRevokedThroughTheHandler(t *testing.T) {
	c := newConsole(t, apikey.ManagerConfig{}, apikey.HandlerConfig{Grace: time.Hour})
	first, _ := c.create(`{"name":"x"}`)
	_, got := c.do("POST", "/"+first+"/rotate", "")
	second := got["key"].(map[string]any)["id"].(string)
	revoked := func(id string) bool {
		_, k := c.do("GET", "/"+id, "")
		return k["revoked_at"] != nil
	}
	for _, query := range []string{"?line=", "?line=yes", "?line=TRUE", "?line=true&line=false", "?line=true;", "?line=tru%", "?line=%74rue&%zz"} {
		if status, got := c.do("DELETE", "/"+second+query, ""); status != 400 || revoked(second) {
			t.Errorf("%s: %d %v", query, status, got)
		}
	}
	if status, _ := c.do("DELETE", "/"+second+"?line=false", ""); status != 204 || !revoked(second) || revoked(first) {
		t.Errorf("one key: %d", status)
	}
	if status, _ := c.do("DELETE", "/"+second+"?line=true", ""); status != 204 || !revoked(first) {
		t.Errorf("the line: %d", status)
	}
}
