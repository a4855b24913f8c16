package idempotencytest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/usher-go/usher/idempotency"
)

const (
	clients = 8
	keys    = 4
	// callsPerClient times clients is the number of calls in a history.
	callsPerClient = 24
	// checkTimeout limits the search for an order of one history.
	checkTimeout = 20 * time.Second
)

// CheckLinearizable records histories of random calls that 8 clients make concurrently on
// 4 keys. It returns an error if no sequential order of the calls in a history, each of
// them one step of the contract, explains their results. The calls claim keys, renew
// leases, several in one call, finish claims in every way, find and delete records, and are
// repeated. Some leases end at once, so that claims are taken over, as are some unknown
// outcomes; a key is claimed for two different requests. A call that returned an unknown error may have happened or not.
func CheckLinearizable(ctx context.Context, s idempotency.Store, histories int) error {
	for i := range histories {
		h := record(ctx, s, uint64(i))
		switch porcupine.CheckOperationsTimeout(model.ToModel(), h, checkTimeout) {
		case porcupine.Illegal:
			return fmt.Errorf("idempotencytest: history %d is not linearizable:\n%s", i, describe(h))
		case porcupine.Unknown:
			return fmt.Errorf("idempotencytest: no order of history %d was found within %v", i, checkTimeout)
		}
	}
	return ctx.Err()
}

// record makes one history.
func record(ctx context.Context, s idempotency.Store, seed uint64) []porcupine.Operation {
	var names [keys]idempotency.Key
	for i := range names {
		names[i] = newKey()
	}
	tokens := make([]idempotency.Token, 1+clients*callsPerClient)
	for i := range tokens {
		tokens[i] = newToken()
	}
	start := time.Now()
	var mu sync.Mutex
	var history []porcupine.Operation
	together(clients, func(client int) {
		random := rand.New(rand.NewPCG(seed, uint64(client)))
		var mine [keys]int           // the token of the last claim of each key
		var generations [keys]uint64 // the last that was seen of each key
		for n := range callsPerClient {
			in := choose(random, &mine, client, n)
			if in.op == remove {
				in.generation = generations[in.key]
			}
			steps := []input{in}
			if in.op == renew {
				steps = renewals(in, &mine)
			}
			ids := make([]idempotency.ClaimID, len(steps))
			for i, step := range steps {
				ids[i] = idempotency.ClaimID{Key: names[step.key], Token: tokens[step.token]}
			}
			called := time.Since(start)
			outs := perform(ctx, s, in, ids)
			returned := time.Since(start)
			mu.Lock()
			for i, out := range outs {
				o := porcupine.Operation{ClientId: client, Input: steps[i], Output: out, Call: int64(called), Return: int64(returned)}
				if out.failed {
					o.Return = math.MaxInt64
				}
				if out.generation != 0 {
					generations[in.key] = out.generation
				}
				history = append(history, o)
			}
			mu.Unlock()
		}
	})
	return history
}

// renewals returns the steps of a call that renews all claims of a client.
func renewals(in input, mine *[keys]int) (steps []input) {
	for key, token := range mine {
		if token != 0 {
			in.key, in.token = key, token
			steps = append(steps, in)
		}
	}
	return steps
}

// choose returns the next call of a client.
func choose(random *rand.Rand, mine *[keys]int, client, n int) input {
	in := input{key: random.IntN(keys), text: fmt.Sprintf("%d-%d", client, n)}
	in.token = mine[in.key]
	switch p := random.IntN(12); {
	case p == 10:
		in.op = find
	case p == 11:
		in.op = remove
	case in.token == 0 || p < 4:
		in.op, in.brief, in.take = claim, random.IntN(2) == 0, random.IntN(2) == 0
		if in.token == 0 || p < 3 { // else the claim is repeated
			in.token = 1 + client*callsPerClient + n
			mine[in.key] = in.token
		}
	case p < 6:
		in.op, in.brief = renew, random.IntN(2) == 0
	default:
		in.op = finish
		// Most claims are released. Otherwise all keys would soon be done.
		switch random.IntN(9) {
		case 0:
			in.state = idempotency.StateDone
		case 1:
			in.state = idempotency.StateTombstone
		case 2:
			in.state = idempotency.StateUnknown
		default:
			in.state = idempotency.StateReleased
		}
	}
	return in
}

// perform makes a call for claims: for one claim, unless the call is Renew. It returns the
// output for each claim.
func perform(ctx context.Context, s idempotency.Store, in input, claims []idempotency.ClaimID) []output {
	lease := time.Hour
	if in.brief {
		lease = time.Nanosecond
	}
	outs := make([]output, len(claims))
	key, token := claims[0].Key, claims[0].Token
	var err error
	switch in.op {
	case claim:
		var r idempotency.Record
		r, err = s.Claim(ctx, idempotency.Claim{
			Key: key, Token: token, Fingerprint: fingerprint(in.token), Lease: lease, TTL: 2 * time.Hour, TakeUnknown: in.take,
		})
		outs[0] = outputOf(&r)
	case renew:
		var lost []idempotency.ClaimID
		lost, err = s.Renew(ctx, slices.Clone(claims), lease)
		for i, c := range claims {
			outs[i].lost = slices.Contains(lost, c)
		}
	case finish:
		outs[0].state, err = s.Finish(ctx, idempotency.Completion{Key: key, Token: token, Result: idempotency.Result{
			State: in.state, Payload: []byte(in.text), TTL: 2 * time.Hour,
		}})
	case find:
		var r idempotency.Record
		r, err = s.Find(ctx, key)
		outs[0] = outputOf(&r)
	case remove:
		err = s.Delete(ctx, key, in.generation)
	}
	for i := range outs {
		switch {
		case errors.Is(err, idempotency.ErrLost):
			outs[i] = output{lost: true}
		case errors.Is(err, idempotency.ErrNotFound):
			outs[i] = output{notFound: true}
		case err != nil:
			outs[i] = output{failed: true}
		}
	}
	return outs
}

func outputOf(r *idempotency.Record) output {
	return output{
		won: r.Won, takenOver: r.TakenOver, state: r.State, generation: r.Generation, text: string(r.Payload),
		fingerprint: r.Fingerprint,
	}
}

// fingerprint returns that of the request whose claim has a token: one of two.
func fingerprint(token int) [32]byte { return [32]byte{31: byte(token % 2)} }

func describe(history []porcupine.Operation) string {
	var b strings.Builder
	for _, o := range history {
		fmt.Fprintf(&b, "client %d, %d to %d ns: %+v returned %+v\n", o.ClientId, o.Call, o.Return, o.Input, o.Output)
	}
	return b.String()
}
