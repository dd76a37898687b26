package main

// appTemplate is the one file of an app: four objects, about 3.8 kB. The Deployment
// has no replicas, so that neither scheduling nor starting of pods is measured.
const appTemplate = `apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{.Name}}
  namespace: {{.Namespace}}
  labels:
    app.kubernetes.io/name: {{.Name}}
    app.kubernetes.io/part-of: bench-fleet
automountServiceAccountToken: false
---
apiVersion: v1
kind: Service
metadata:
  name: {{.Name}}
  namespace: {{.Namespace}}
  labels:
    app.kubernetes.io/name: {{.Name}}
    app.kubernetes.io/part-of: bench-fleet
spec:
  type: ClusterIP
  selector:
    app.kubernetes.io/name: {{.Name}}
  ports:
    - name: http
      port: 9898
      protocol: TCP
      targetPort: http
    - name: grpc
      port: 9999
      protocol: TCP
      targetPort: grpc
    - name: metrics
      port: 9797
      protocol: TCP
      targetPort: metrics
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{.Name}}
  namespace: {{.Namespace}}
  labels:
    app.kubernetes.io/name: {{.Name}}
    app.kubernetes.io/part-of: bench-fleet
    app.kubernetes.io/version: {{.Version}}
    bench.plumb.dev/tier: {{.tier}}
spec:
  replicas: 0
  minReadySeconds: 3
  revisionHistoryLimit: 5
  progressDeadlineSeconds: 120
  strategy:
    type: RollingUpdate
    rollingUpdate:
      maxUnavailable: 0
      maxSurge: 1
  selector:
    matchLabels:
      app.kubernetes.io/name: {{.Name}}
  template:
    metadata:
      annotations:
        prometheus.io/scrape: "true"
        prometheus.io/port: "9797"
      labels:
        app.kubernetes.io/name: {{.Name}}
        app.kubernetes.io/version: {{.Version}}
    spec:
      serviceAccountName: {{.Name}}
      terminationGracePeriodSeconds: 30
      containers:
        - name: server
          image: {{.registry}}/fleet/server:{{.Version}}
          imagePullPolicy: IfNotPresent
          command:
            - ./server
            - --port=9898
            - --port-metrics=9797
            - --grpc-port=9999
            - --grpc-service-name={{.Name}}
            - --level={{.level}}
            - --random-delay=false
            - --random-error=false
          ports:
            - name: http
              containerPort: 9898
              protocol: TCP
            - name: metrics
              containerPort: 9797
              protocol: TCP
            - name: grpc
              containerPort: 9999
              protocol: TCP
          env:
            - name: APP_NAME
              value: {{.Name}}
            - name: APP_VERSION
              value: {{.Version}}
            - name: APP_COLOR
              value: "{{.color}}"
          livenessProbe:
            httpGet:
              path: /healthz
              port: http
            initialDelaySeconds: 5
            timeoutSeconds: 5
          readinessProbe:
            httpGet:
              path: /readyz
              port: http
            initialDelaySeconds: 5
            timeoutSeconds: 5
          resources:
            requests:
              cpu: 100m
              memory: 64Mi
            limits:
              cpu: 2000m
              memory: 512Mi
          securityContext:
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            runAsNonRoot: true
            capabilities:
              drop:
                - ALL
          volumeMounts:
            - name: data
              mountPath: /data
      volumes:
        - name: data
          emptyDir: {}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: {{.Name}}
  namespace: {{.Namespace}}
  labels:
    app.kubernetes.io/name: {{.Name}}
    app.kubernetes.io/part-of: bench-fleet
spec:
  ingressClassName: nginx
  rules:
    - host: {{.Name}}.{{.domain}}
      http:
        paths:
          - path: /
            pathType: Prefix
            backend:
              service:
                name: {{.Name}}
                port:
                  number: 9898
`
