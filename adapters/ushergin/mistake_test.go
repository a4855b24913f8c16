package ushergin_test

import (
	"maps"
	"net/http"
	"strings"
	"testing"

	"github.com/gin-gonic/gin"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/adapters/adaptertest"
)

// TestMiddlewareByHand shows what goes wrong without the adapter, and that the suite
// detects it.
func TestMiddlewareByHand(t *testing.T) {
	differences := maps.Clone(router.Differences)
	for observed, ids := range map[string]string{
		"restored is false":     "2.returned 2.panicked",
		"ran inside is 3":       "3.usher 3.foreign",
		"the handler ran is 4":  "19.limit",
		"after the panic is 2":  "17.chain",
		"it was built is 3":     "19.built",
		"names the route:  is":  "20.use 20.group 20.route",
		"names the route: / is": "20.mounted",
		"status:0":              "5.json 5.string 5.writestring 5.blob 5.plain 6.202 6.204 6.304 7.status 7.usher 7.private 8.inside 8.outside 10.usher 11.usher 15.flusher 15.controller 15.native 17.inside 26.gzip",
		"captured status is 0":  "6.head 8.foreign 10.status 11.status",
		`Rewritten is ""`:       "12.json 12.string 12.file 14.plain 14.flusher 14.controller",
		"captured outside":      "22.nested",
		`}{"data":null}`:        "25.stack", // the body of the handler and that of the envelope
		`captured body is ""`:   "10.body",
		"the client got 200":    "18.recovery",
		"body of /ok for gzip":  "26.stack",
		"runs is 2":             "29.once",
		"runs is 3":             "26.replay",
		"six failed logins":     "29.limits",
		"recorded uses after":   "29.use",
		"recorded uses is":      "32.nothing 32.status 32.refused 32.panic",
		"uses of a stream is":   "32.stream",
		"without the route":     "30.use",
		`replayed is "true"`:    "30.usher",
		"handler ran is 2":      "30.route 30.grouproute",
		"commits is 2":          "31.commit",
	} {
		for id := range strings.FieldsSeq(ids) {
			differences[id] = adaptertest.Difference{Reason: "by hand", Observed: observed}
		}
	}
	adaptertest.Test(t, adaptertest.Router{
		Name:        "gin by hand",
		Handler:     adapter{func(m usher.Middleware) gin.HandlerFunc { return byHand(m.Wrap) }, byHand}.engine,
		Differences: differences,
		Lacks:       router.Lacks,
	})
}

// byHand is the adapter that projects copy from one another. It builds the middleware for
// each request, never aborts, and ignores the writer.
func byHand(m func(http.Handler) http.Handler) gin.HandlerFunc {
	return func(c *gin.Context) {
		m(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			c.Request = r
			c.Next()
		})).ServeHTTP(c.Writer, c.Request)
	}
}
