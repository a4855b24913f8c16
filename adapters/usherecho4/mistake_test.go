package usherecho4_test

import (
	"maps"
	"strings"
	"testing"

	"github.com/labstack/echo/v4"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/adapters/adaptertest"
)

// TestEchoWrapMiddleware shows what goes wrong with echo's own adapter, and that the
// suite detects it.
func TestEchoWrapMiddleware(t *testing.T) {
	differences := make(map[string]adaptertest.Difference)
	for observed, ids := range map[string]string{
		"restored is false":     "2.returned 2.panicked",
		"status:0":              "7.status 7.usher 7.private 9.body 10.usher 11.usher",
		"captured status is 0":  "10.status 11.status",
		`captured body is ""`:   "10.body",
		"status is 200":         "13.error 13.unmatched 13.panic",
		"it was built is 3":     "19.built",
		"the retry is 200":      "29.once",
		"the replay is 200":     "26.replay",
		"six failed logins":     "29.limits",
		"recorded uses after":   "29.use",
		"recorded uses is":      "32.nothing 32.status 32.refused 32.panic",
		"uses of a stream is":   "32.stream",
		"without the route":     "30.use 30.group 30.usher",
		"committed is true":     "31.commit",
		`replayed is ""`:        "30.route 30.grouproute",
		"names the route:  is":  "20.use 20.group 20.route",
		"names the route: / is": "20.mounted",
	} {
		for id := range strings.FieldsSeq(ids) {
			differences[id] = adaptertest.Difference{Reason: "echo.WrapMiddleware", Observed: observed}
		}
	}
	lacks := maps.Clone(router.Lacks)
	lacks["14.plain"] = "The server panics."
	adaptertest.Test(t, adaptertest.Router{
		Name:        "echo.WrapMiddleware",
		Handler:     adapter{wrap, echo.WrapMiddleware}.echo,
		Differences: differences,
		Lacks:       lacks,
	})
}

func wrap(m usher.Middleware) echo.MiddlewareFunc { return echo.WrapMiddleware(m.Wrap) }
