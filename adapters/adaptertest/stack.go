package adaptertest

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/apikey"
	"github.com/usher-go/usher/envelope"
	"github.com/usher-go/usher/idempotency"
	"github.com/usher-go/usher/ratelimit"
)

// newStack returns, from the outside in, the envelope, API keys, a limit that nobody
// reaches, and idempotency. It returns a key for each of owners.
func newStack(b *bench, owners ...string) (use []Step, keys map[string]string) {
	format := apikey.Native{Prefix: "test", Environments: []string{"live"}}
	store := apikey.NewMemory()
	manager := must(apikey.NewManager(apikey.ManagerConfig{Store: store, Format: format}))(b)
	auth := must(apikey.New(apikey.Config{Manager: manager}))(b)
	b.Cleanup(func() { _ = auth.Close() })
	records := must(idempotency.NewMemory(idempotency.MemoryConfig{}))(b)
	b.Cleanup(func() { _ = records.Close() })

	keys = make(map[string]string)
	for _, owner := range owners {
		_, secret, err := manager.Create(b.Context(), apikey.Actor{System: true}, apikey.Key{Owner: owner, Name: "a key"})
		keys[owner] = must(secret, err)(b).Reveal()
	}
	return []Step{
		{Usher: must(envelope.New(envelope.Config{Shape: envelope.Data(), Wrap: true}))(b)},
		{Usher: usher.Authenticate(auth)},
		{Usher: must(ratelimit.New(ratelimit.Config{Policies: []ratelimit.Policy{{
			Name: "caller", Key: ratelimit.ByPrincipal(), Limit: ratelimit.RollingWindow(1_000_000, time.Hour),
		}}}))(b)},
		{Usher: must(idempotency.New(idempotency.Config{Store: records}))(b)},
	}, keys
}

// must returns a function that returns v. Constructors do not fail here.
func must[T any](v T, err error) func(*bench) T {
	return func(b *bench) T {
		b.Helper()
		if err != nil {
			b.Fatal(err)
		}
		return v
	}
}

const (
	callers         = 8
	requestsByEach  = 150
	payloadOfCaller = `{"sent":%q}`
)

// checkCrowd runs many callers at once. Each response must name the caller, the requested
// item and the body that was sent. All callers use the same idempotency keys.
func checkCrowd(b *bench) error {
	owners := make([]string, callers)
	for i := range owners {
		owners[i] = fmt.Sprintf("owner-%d", i)
	}
	use, keys := newStack(b, owners...)
	handler := func(c Context) error {
		body, err := io.ReadAll(c.Request().Body)
		if err != nil {
			return err
		}
		p, _ := c.Principal()
		return c.JSON(200, map[string]string{"owner": p.Owner, "id": c.Param("id"), "body": string(body)})
	}
	c := b.serve(App{
		Use:    use,
		Routes: []Route{get("/items/{id}", handler)},
		Group:  Group{Prefix: "/orders", Routes: []Route{post("/{id}", handler)}},
	})
	var crowd sync.WaitGroup
	faults := make([]error, callers)
	for i, owner := range owners {
		crowd.Go(func() { faults[i] = c.call(owner, keys[owner]) })
	}
	crowd.Wait()
	return errors.Join(faults...)
}

// call sends the requests of one caller. Every third request repeats the previous one.
func (c *client) call(owner, key string) error {
	for i := range requestsByEach {
		method, path, body := http.MethodGet, fmt.Sprintf("/items/%d", i), ""
		header := []string{"X-API-Key: " + key}
		if n := i; n%3 > 0 {
			n -= n%3 - 1
			method, path, body = http.MethodPost, fmt.Sprintf("/orders/%d", n), fmt.Sprintf(payloadOfCaller, owner)
			header = append(header, fmt.Sprintf("Idempotency-Key: key-%d", n))
		}
		a, err := c.try(method, path, body, header...)
		if err != nil {
			return err
		}
		id := path[strings.LastIndex(path, "/")+1:]
		want := fmt.Sprintf(`{"data":{"body":%q,"id":%q,"owner":%q}`, body, id, owner)
		if a.status != http.StatusOK || !strings.HasPrefix(a.body, want) {
			return fmt.Errorf("%s %s of %s: %d %s, want %s", method, path, owner, a.status, a.body, want)
		}
	}
	return nil
}
