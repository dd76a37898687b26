package ownership

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestDifferences(t *testing.T) {
	t.Parallel()
	const containers = `"managedFields":[{"fieldsV1":{"f:spec":{"f:containers":{"k:{\"name\":\"a\"}":{".":{},"f:args":{},"f:image":{},"f:name":{}}}}}}]`
	for name, row := range map[string]struct {
		sent, answer string
		want         []string
	}{
		"equal":                              {`{"spec":{"a":1}}`, `{"spec":{"a":1}}`, nil},
		"a scalar":                           {`{"spec":{"replicas":1}}`, `{"spec":{"replicas":2}}`, []string{".spec.replicas"}},
		"zero replicas are not absent":       {`{"spec":{"replicas":0}}`, `{"spec":{"replicas":2}}`, []string{".spec.replicas"}},
		"several, sorted":                    {`{"spec":{"b":1,"a":"x"}}`, `{"spec":{"b":2,"a":"y"}}`, []string{".spec.a", ".spec.b"}},
		"fields that were not sent":          {`{"spec":{"a":1}}`, `{"spec":{"a":1,"b":2},"x":1}`, nil},
		"a field that is gone":               {`{"spec":{"a":1}}`, `{"spec":{}}`, []string{".spec.a"}},
		"a map that is gone":                 {`{"spec":{"a":{"b":1,"c":2}}}`, `{"spec":{}}`, []string{".spec.a"}},
		"a map of empty things that is gone": {`{"spec":{"a":{"b":{},"c":[],"d":null,"e":false}}}`, `{}`, nil},
		"a map that became a text":           {`{"a":{"b":1}}`, `{"a":"x"}`, []string{".a"}},
		"null":                               {`{"a":null}`, `{"a":{"b":1}}`, nil},
		"quantities of one amount":           {`{"r":{"limits":{"cpu":"1000m","memory":"1024Mi","x":1}}}`, `{"r":{"limits":{"cpu":"1","memory":"1Gi","x":"1"}}}`, nil},
		"half a processor as a number":       {`{"r":{"limits":{"cpu":0.5}}}`, `{"r":{"limits":{"cpu":"500m"}}}`, nil},
		"quantities of different amounts":    {`{"r":{"limits":{"cpu":"1000m"}}}`, `{"r":{"limits":{"cpu":"2"}}}`, []string{".r.limits.cpu"}},
		"numbers of one value":               {`{"a":1,"b":1.0}`, `{"a":1.0,"b":1}`, nil},
		"labels are texts":                   {`{"metadata":{"labels":{"v":"1.0"}}}`, `{"metadata":{"labels":{"v":"1"}}}`, []string{".metadata.labels.v"}},
		"data of a config map are texts":     {`{"apiVersion":"v1","kind":"ConfigMap","data":{"v":"1.0"}}`, `{"data":{"v":"1"}}`, []string{".data.v"}},
		"identity and status":                {`{"apiVersion":"v1","kind":"X","metadata":{"name":"a","uid":"x"},"status":{"a":1}}`, `{"metadata":{"name":"b"}}`, nil},
		"a chosen port and an empty address": {`{"spec":{"clusterIP":"","ports":[{"port":80,"nodePort":0}]}}`, `{"spec":{"clusterIP":"10.0.0.1","ports":[{"port":80,"nodePort":30000}]}}`, nil},
		"a key with dots":                    {`{"data":{"a.b":"x"}}`, `{"data":{"a.b":"y"}}`, []string{`.data."a.b"`}},
		"stringData of a secret":             {`{"apiVersion":"v1","kind":"Secret","data":{"c":"eA==","d":"eA=="},"stringData":{"a":"x","b":"x","d":"y"}}`, `{"data":{"a":"eA==","b":"eQ==","c":"eA==","d":"eQ=="}}`, []string{".stringData.b"}},
		"data of a secret in lines":          {`{"apiVersion":"v1","kind":"Secret","data":{"a":"eH\nh4\n","b":"eA=="}}`, `{"data":{"a":"eHh4","b":"eQ=="}}`, []string{".data.b"}},
		"items found by the keys of managedFields": {`{"spec":{"containers":[{"name":"a","image":"x","args":["1"]}]}}`,
			`{"metadata":{` + containers + `},"spec":{"containers":[{"name":"side","image":"s"},{"name":"a","image":"y","args":["1","2"]}]}}`,
			[]string{".spec.containers[name=a].args", ".spec.containers[name=a].image"}},
		"an item that is gone": {`{"spec":{"containers":[{"name":"a"},{"name":"b"}]}}`, `{"metadata":{` + containers + `},"spec":{"containers":[{"name":"b"}]}}`, []string{".spec.containers[name=a]"}},
		"a defaulted key": {`{"spec":{"ports":[{"port":80,"x":1}]}}`,
			`{"metadata":{"managedFields":[{"fieldsV1":{"f:spec":{"f:ports":{"k:{\"port\":80,\"protocol\":\"TCP\"}":{".":{},"f:port":{},"f:x":{}}}}}}]},"spec":{"ports":[{"port":80,"protocol":"TCP","x":2}]}}`,
			[]string{".spec.ports[port=80].x"}},
		"names without managedFields":     {`{"l":[{"name":"a","v":1},{"name":"b","v":1}]}`, `{"l":[{"name":"b","v":1},{"name":"a","v":2}]}`, []string{".l[name=a].v"}},
		"items without names go by index": {`{"l":[{"v":1},{"v":2}]}`, `{"l":[{"v":1,"w":1},{"v":3}]}`, []string{".l[1].v"}},
		"an atomic list that grew":        {`{"l":["a"]}`, `{"metadata":{"managedFields":[{"fieldsV1":{"f:l":{}}}]},"l":["a","b"]}`, []string{".l"}},
		"a set that grew":                 {`{"l":["a"]}`, `{"metadata":{"managedFields":[{"fieldsV1":{"f:l":{"v:\"a\"":{},"v:\"b\"":{}}}}]},"l":["b","a"]}`, nil},
		"a set that lost":                 {`{"l":["a","b"]}`, `{"metadata":{"managedFields":[{"fieldsV1":{"f:l":{"v:\"a\"":{}}}}]},"l":["a"]}`, []string{".l"}},
		"an empty list that was filled":   {`{"l":[]}`, `{"metadata":{"managedFields":[{"fieldsV1":{"f:l":{}}}]},"l":["a"]}`, []string{".l"}},
		"an empty list that others fill":  {`{"l":[]}`, `{"l":[{"name":"a"}]}`, nil},
		"no object":                       {`1`, `{}`, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var answer map[string]any
			if err := json.Unmarshal([]byte(row.answer), &answer); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(row.want, Differences([]byte(row.sent), answer)); diff != "" {
				t.Errorf("Differences (-want +got):\n%s", diff)
			}
		})
	}
}
