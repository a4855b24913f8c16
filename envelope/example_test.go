package envelope_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/envelope"
)

// show prints the response of h to a request.
func show(h http.Handler, method, target string) {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(method, target, nil))
	fmt.Println(w.Code, w.Body)
}

// In the smallest server, new handlers write through [envelope.For] and [usher.Fail].
func Example() {
	env, err := envelope.New(envelope.Config{Shape: envelope.Data()})
	if err != nil {
		panic(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /notes/{id}", func(w http.ResponseWriter, r *http.Request) {
		if r.PathValue("id") != "1" {
			usher.Fail(w, r, &usher.Error{Status: http.StatusNotFound, Code: "no_such_note", Message: "There is no such note."})
			return
		}
		envelope.For(w, r).Value(map[string]string{"title": "Milk"})
	})
	server := env.Wrap(env.Mux(mux)) // http.ListenAndServe(addr, server)

	show(server, http.MethodGet, "/notes/1")
	show(server, http.MethodGet, "/notes/2")
	show(server, http.MethodDelete, "/notes/1")
	show(server, http.MethodGet, "/nowhere")
	// Output:
	// 200 {"data":{"title":"Milk"}}
	// 404 {"error":{"code":"no_such_note","message":"There is no such note."}}
	// 405 {"error":{"code":"method_not_allowed","message":"Method Not Allowed"}}
	// 404 {"error":{"code":"not_found","message":"Not Found"}}
}

// Existing handlers keep writing plain JSON and calling http.Error.
func ExampleConfig_wrap() {
	existing := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("page") == "0" {
			http.Error(w, "page counts from 1", http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `[{"title":"Milk"}]`)
	})
	env, err := envelope.New(envelope.Config{Shape: envelope.Data(), Wrap: true})
	if err != nil {
		panic(err)
	}
	show(env.Wrap(existing), http.MethodGet, "/notes")
	show(env.Wrap(existing), http.MethodGet, "/notes?page=0")
	// Output:
	// 200 {"data":[{"title":"Milk"}]}
	// 400 {"error":{"code":"bad_request","message":"page counts from 1"}}
}

// A catalogue maps errors to the codes and texts that a service has documented.
func ExampleCatalogue() {
	env, err := envelope.New(envelope.Config{
		Shape: envelope.Data(),
		Catalogue: envelope.Catalogue{
			Codes: map[string]envelope.Entry{
				usher.CodeMissingCredential: {Code: "MISSING_AUTHENTICATION", Message: "Please log in."},
				"rate_limited":              {Code: "SLOW_DOWN"}, // keeps the text of each limiter
			},
			Statuses: map[int]envelope.Entry{
				http.StatusInternalServerError: {Code: "INTERNAL_ERROR"},
			},
		},
		OnPanic: func(*http.Request, any, []byte) {},
	})
	if err != nil {
		panic(err)
	}
	for _, h := range []http.HandlerFunc{
		usher.Authenticate().Wrap(nil).ServeHTTP,
		func(w http.ResponseWriter, r *http.Request) {
			usher.Fail(w, r, &usher.Error{Status: http.StatusTooManyRequests, Code: "rate_limited", Message: "10 uploads an hour."})
		},
		func(http.ResponseWriter, *http.Request) { panic("a fault") },
	} {
		show(env.Wrap(h), http.MethodGet, "/")
	}
	// Output:
	// 401 {"error":{"code":"MISSING_AUTHENTICATION","message":"Please log in."}}
	// 429 {"error":{"code":"SLOW_DOWN","message":"10 uploads an hour."}}
	// 500 {"error":{"code":"INTERNAL_ERROR","message":"Internal Server Error"}}
}

// A custom shape consists of a few functions that append JSON.
func ExampleShape() {
	jsend := envelope.Shape{
		Before: func(b []byte, resp *envelope.Response) []byte {
			b = append(b, `{"status":"success","data":`...)
			if resp.NoData {
				b = append(b, "null"...)
			}
			return b
		},
		After: func(b []byte, _ *envelope.Response) []byte { return append(b, '}') },
		Error: func(b []byte, resp *envelope.Response) []byte {
			b = append(b, `{"status":"error","message":`...)
			b = envelope.AppendString(b, resp.Message)
			return append(b, '}')
		},
		Constant: true,
	}
	env, err := envelope.New(envelope.Config{Shape: jsend})
	if err != nil {
		panic(err)
	}
	show(env.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		envelope.For(w, r).Value([]int{1, 2})
	})), http.MethodGet, "/")
	show(env.Wrap(http.HandlerFunc(env.NotFound)), http.MethodGet, "/")
	// Output:
	// 200 {"status":"success","data":[1,2]}
	// 404 {"status":"error","message":"Not Found"}
}

// A mistake is to put the envelope inside authentication: refused requests never reach
// the envelope, so their responses differ in shape from the rest of the service.
func ExampleEnvelope_Wrap_incorrect() {
	env, err := envelope.New(envelope.Config{Shape: envelope.Detail()})
	if err != nil {
		panic(err)
	}
	auth := usher.Authenticate()

	incorrect := usher.Chain(auth, env).Wrap(http.NotFoundHandler())
	show(incorrect, http.MethodGet, "/")

	correct := usher.Chain(env, auth).Wrap(http.NotFoundHandler())
	show(correct, http.MethodGet, "/")
	// Output:
	// 401 {"type":"about:blank","title":"Unauthorized","status":401,"detail":"The request carries no credential.","code":"missing_credential"}
	// 401 {"detail":"The request carries no credential."}
}
