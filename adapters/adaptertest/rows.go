package adaptertest

import (
	"errors"
	"io"
	"net/http"

	"github.com/usher-go/usher"
)

// allocsRow is the row for which the table shows the number of allocations.
const allocsRow = 27

// rows is the table of all routers.
var rows = []row{
	{1, "the native handler finds the principal by the framework's own accessor", []behaviour{
		{word: "usher", check: func(b *bench) error { return checkPrincipal(b, Step{Usher: authenticate()}) }},
		{word: "foreign", check: func(b *bench) error { return checkPrincipal(b, Step{Foreign: authenticate().Wrap}) }},
	}},
	{2, "outer native middlewares get their request and writer back, also after a panic", []behaviour{
		{word: "returned", check: func(b *bench) error { return checkRestored(b, false) }},
		{word: "panicked", check: func(b *bench) error { return checkRestored(b, true) }},
	}},
	{3, "a refusal runs neither the handler nor inner middlewares", []behaviour{
		{word: "usher", check: func(b *bench) error { return checkRefused(b, Step{Usher: refuse()}) }},
		{word: "foreign", check: func(b *bench) error { return checkRefused(b, Step{Foreign: refuse().Wrap}) }},
	}},
	{4, "outer native middlewares see a refusal: status, size, written", []behaviour{
		{word: "usher", check: func(b *bench) error { return checkRefusalSeen(b, Step{Usher: refuse()}) }},
		{word: "foreign", check: func(b *bench) error { return checkRefusalSeen(b, Step{Foreign: refuse().Wrap}) }},
	}},
	{5, "status and body are captured, however the handler writes", []behaviour{
		{word: "json", check: captures(func(c Context) error { return c.JSON(201, map[string]int{"a": 1}) }, 201)},
		{word: "string", check: captures(func(c Context) error { return c.String(200, "text") }, 200)},
		{word: "writestring", check: captures(func(c Context) error {
			_, err := io.WriteString(c.Writer(), "text")
			return err
		}, 200)},
		{word: "blob", check: captures(func(c Context) error { return c.Blob(202, "image/png", []byte("png")) }, 202)},
		{word: "plain", check: captures(func(c Context) error {
			c.Writer().WriteHeader(203)
			_, err := c.Writer().Write([]byte("text"))
			return err
		}, 203)},
	}},
	{6, "a status without a body is captured: 202, 204, 304, HEAD", []behaviour{
		{word: "202", check: captures(func(c Context) error { return c.Status(202) }, 202)},
		{word: "204", check: captures(func(c Context) error { return c.Status(204) }, 204)},
		{word: "304", check: captures(func(c Context) error { return c.Status(304) }, 304)},
		{word: "head", check: checkHead},
	}},
	{7, "an error of the framework is captured before the middleware returns", []behaviour{
		{word: "status", check: captures(func(c Context) error { return c.Fail(418) }, 418)},
		{word: "usher", check: checkReturned(&usher.Error{Status: 409, Code: "taken"}, 409, `"code":"taken"`)},
		{word: "private", check: checkReturned(errors.New("private"), 500, `"code":"internal"`)},
	}},
	{8, "what renders c.Errors may run inside a capture or outside", []behaviour{
		{word: "inside", check: checkReturned(&usher.Error{Status: 409, Code: "taken"}, 409, `"code":"taken"`)},
		{word: "outside", check: checkReturnedInside(&usher.Error{Status: 409, Code: "taken"}, 409, `"code":"taken"`)},
		{word: "foreign", check: checkLateRenderer},
	}},
	{9, "a central error handler writes one body, and is called once if the writer is not replaced", []behaviour{
		{word: "body", check: checkErrorHandlerBody},
		{word: "calls", check: checkErrorHandlerCalls},
	}},
	{10, "an unmatched route is captured: status, body", []behaviour{
		{word: "status", check: checkUnrouted(http.MethodGet, App{}, seesStatus)},
		{word: "body", check: checkUnrouted(http.MethodGet, App{}, seesBody)},
		{word: "usher", check: checkUnrouted(http.MethodGet, App{Failures: true}, seesProblem)},
	}},
	{11, "a wrong method is captured, and Allow stays", []behaviour{
		{word: "status", check: checkUnrouted(http.MethodPost, App{}, seesStatus)},
		{word: "allow", check: checkUnrouted(http.MethodPost, App{}, seesAllow)},
		{word: "usher", check: checkUnrouted(http.MethodPost, App{Failures: true}, seesProblem, seesAllow)},
	}},
	{12, "a response that is buffered and rewritten arrives once, with its own length", []behaviour{
		{word: "json", check: checkRewritten(func(c Context) error { return c.JSON(200, 1) })},
		{word: "string", check: checkRewritten(ok)},
		{word: "file", check: checkRewrittenFile},
	}},
	{13, "an error behind a rewriting middleware arrives as an error, never as 200", []behaviour{
		{word: "error", check: checkRewrittenFailure("/error", 418)},
		{word: "unmatched", check: checkRewrittenFailure("/none", 404)},
		{word: "panic", check: checkRewrittenFailure("/panic", 500, Step{Recover: true})},
		{word: "recovered", check: checkRewrittenFailure("/recovered", 500)},
	}},
	{14, "a flush behind a rewriting middleware neither panics nor sends the header early", []behaviour{
		{word: "plain", check: checkFlushBuffered(rewrite, flushByAssertion)},
		{word: "flusher", check: checkFlushBuffered(rewriteFlusher, flushByAssertion)},
		{word: "controller", check: checkFlushBuffered(rewriteFlusher, flushByController)},
	}},
	{15, "streams arrive as they are written; SSE and files pass the whole stack", []behaviour{
		{word: "flusher", check: checkStream(streamBy(flushByAssertion))},
		{word: "controller", check: checkStream(streamBy(flushByController))},
		{word: "native", check: checkStream(streamNatively)},
		{word: "sse", check: checkSSE},
		{word: "file", check: checkFile},
	}},
	{16, "connections can be taken over, also by websocket libraries through the whole stack", []behaviour{
		{word: "hijack", check: checkHijack, http1: true},
		{word: "gorilla", check: checkWebsocket(echoByGorilla), http1: true},
		{word: "coder", check: checkWebsocket(echoByCoder), http1: true},
	}},
	{17, "the framework's recovery responds with 500 outside, and is captured inside; a panic ends the chain", []behaviour{
		{word: "outside", check: checkRecoverOutside},
		{word: "inside", check: checkRecoverInside},
		{word: "chain", check: checkChainEnds},
	}},
	{18, "http.ErrAbortHandler passes through unchanged", []behaviour{
		{word: "alone", check: checkAbort()},
		{word: "recovery", check: checkAbort(Step{Recover: true})},
	}},
	{19, "a middleware is built once, and its counts persist", []behaviour{
		{word: "built", check: checkBuiltOnce},
		{word: "limit", check: checkLimit},
	}},
	{20, "the pattern of the route is known before next, also when mounted under a ServeMux", []behaviour{
		{word: "use", check: checkPattern(use)},
		{word: "group", check: checkPattern(useInGroup)},
		{word: "route", check: checkPattern(func(a *App, s Step) {
			for i := range a.Group.Routes {
				a.Group.Routes[i].Use = []Step{s}
			}
		})},
		{word: "mounted", check: checkPatternMounted},
		{word: "unmatched", check: checkPatternUnmatched},
	}},
	{21, "parameters of the path are known to r.PathValue", []behaviour{
		{word: "use", check: checkPathValue(use)},
		{word: "route", check: checkPathValue(func(a *App, s Step) { a.Routes[0].Use = []Step{s} })},
		{word: "handler", check: checkPathValueInHandler},
	}},
	{22, "global middlewares run before those of the group, and these before the route's", []behaviour{
		{word: "order", check: checkOrder},
		{word: "nested", check: checkNested},
	}},
	{23, "a body that was replaced is what the handler reads, and no file of a form is left", []behaviour{
		{word: "body", check: checkBodyReplaced},
		{word: "form", check: checkForm, http1: true},
	}},
	{24, "a header field that is set after next is sent if nothing was written", []behaviour{
		{word: "usher", check: checkLateHeader(func(f middlewareFunc) Step { return Step{Usher: f} })},
		{word: "foreign", check: checkLateHeader(func(f middlewareFunc) Step { return Step{Foreign: f.Wrap} })},
	}},
	{25, "8 callers with 150 requests each get their own responses", []behaviour{
		{word: "stack", check: checkCrowd},
	}},
	{26, "inside compression a capture has plain bytes, responses keep their shape, and replays fit their request", []behaviour{
		{word: "gzip", check: checkCompression},
		{word: "error", check: checkCompressedError},
		{word: "stack", check: checkCompressedStack},
		{word: "replay", check: checkReplays},
	}},
	{allocsRow, "allocations that the adapter adds", []behaviour{
		{word: "allocs"}, // TestAllocs
	}},
	{28, "usher's writers have Flush, Hijack, Unwrap and WriteString", []behaviour{
		{word: "writer", check: checkAbilities},
	}},
	{29, "an error that a handler returns counts by its status: idempotency, limits, last use", []behaviour{
		{word: "once", check: checkReturnedOnce},
		{word: "limits", check: checkReturnedCounted},
		{word: "use", check: checkReturnedUse},
	}},
	{30, "idempotency does not store a 404 or 405 that no route produced, and stores that of a route", []behaviour{
		{word: "use", check: checkForgotten(App{}, use)},
		{word: "group", check: checkForgotten(App{}, useInGroup)},
		{word: "usher", check: checkForgotten(App{Failures: true}, use)},
		{word: "route", check: checkRemembered(use)},
		{word: "grouproute", check: checkRemembered(useInGroup)},
	}},
	{31, "the transaction of a handler is committed if its response is kept, and rolled back if not", []behaviour{
		{word: "commit", check: checkCommitted},
	}},
	{32, "the use of a credential is recorded once, with the status of the response and the route", []behaviour{
		{word: "nothing", check: checkUse(func(Context) error { return nil }, 200)},
		{word: "status", check: checkUse(func(c Context) error { return c.Status(202) }, 202)},
		{word: "refused", check: checkUse(func(c Context) error {
			http.Error(c.Writer(), "no", http.StatusForbidden)
			return nil
		}, 403)},
		{word: "panic", check: checkUse(func(Context) error { panic(http.ErrAbortHandler) }, 0)},
		{word: "stream", check: checkStreamUse},
	}},
}

// use mounts a middleware for all requests, and useInGroup for those of the group.
func use(a *App, s Step)        { a.Use = []Step{s} }
func useInGroup(a *App, s Step) { a.Group.Use = []Step{s} }
