//! The methods of the SOAP API: what each does with the inventory, for whom.

use std::time::Duration;

use vsphere_wire::property::{RetrieveResult, UpdateSet};
use vsphere_wire::service::UserSession;
use vsphere_wire::xml::Element;
use vsphere_wire::{Request, Response, Value as _};

use super::clone;
use super::collector::{self, Collector, Filter};
use super::failure::Failure;
use super::inventory::{Inventory, Kind, Reference, is_known_type};
use super::operation::Operation;
use super::person::create_folder;
use super::scope::{Scope, service_content};
use super::session::{DEFAULT_COLLECTOR, Session, View};
use super::{Out, State, VCenter};

/// Objects in one answer of RetrievePropertiesEx, when the caller does not say.
const PAGE: usize = 1000;
/// The longest wait, when the caller does not say.
const LONGEST_WAIT: Duration = Duration::from_secs(1800);

/// Who calls.
#[derive(Clone, Debug, Default)]
pub struct Caller {
    /// The key in the session cookie.
    pub session: Option<String>,
    pub agent: String,
    pub address: String,
}

/// An answer, and the session that it opened.
#[derive(Debug)]
pub struct Reply {
    pub response: Response,
    pub opened: Option<String>,
}

impl From<Response> for Reply {
    fn from(response: Response) -> Self {
        Self { response, opened: None }
    }
}

/// A signed-in caller.
struct Signed {
    key: String,
    user: String,
}

impl VCenter {
    /// Whether the caller's session lives; it counts as active from now.
    fn sign(&self, caller: &Caller) -> Option<Signed> {
        let now = self.0.options.clock.now();
        let limit = self.0.options.session_idle;
        let expired = {
            let mut state = self.state();
            state.sessions.expire(now, limit)
        };
        for key in expired {
            self.act(|state| {
                touch_sessions(state);
                state.outbox.push_back(Out::Log { step: "session-expired", object: "session".to_owned(), result: user_of(state, &key) });
            });
        }
        let mut state = self.state();
        let session = state.sessions.get_mut(caller.session.as_deref()?)?;
        session.last_active = now;
        session.calls += 1;
        Some(Signed { key: session.key.clone(), user: session.user.clone() })
    }

    /// Reads with the caller's eyes.
    fn look<R>(&self, session: Option<&str>, read: impl FnOnce(Scope<'_>) -> R) -> R {
        let now = self.0.options.clock.now();
        let state = self.state();
        let session = session.and_then(|key| state.sessions.get(key));
        read(Scope { inventory: &state.inventory, sessions: &state.sessions, session, now })
    }

    /// Carries a method out.
    ///
    /// # Errors
    /// The fault it answers. `task_fault`: the task that the method starts ends with this one.
    pub(super) async fn call(&self, caller: &Caller, request: Request, task_fault: Option<Failure>) -> Result<Reply, Failure> {
        let signed = self.sign(caller);
        match request {
            Request::RetrieveServiceContent(_) => {
                return Ok(Response::RetrieveServiceContent(service_content(&self.state().inventory)).into());
            }
            Request::CurrentTime(_) => return Ok(Response::CurrentTime(self.0.options.clock.now()).into()),
            Request::Login(login) => {
                if signed.is_some() {
                    return Err(Failure::invalid_login());
                }
                return self.login(caller, &login.user_name, &login.password);
            }
            Request::RetrievePropertiesEx(call) if signed.is_none() => return self.read_unsigned(&call).map(Reply::from),
            _ => {}
        }
        let Some(signed) = signed else {
            let on = request.this().unwrap_or_else(|| self.state().inventory.root.clone());
            return Err(Failure::not_authenticated(&on));
        };
        if let Some(this) = request.this()
            && !self.look(Some(&signed.key), |scope| scope.exists(&this))
        {
            return Err(Failure::not_found(&this));
        }
        match request {
            Request::WaitForUpdatesEx(call) => self.wait(&signed, &call).await.map(|set| Response::WaitForUpdatesEx(set).into()),
            other => self.answer(&signed, other, task_fault).map(Reply::from),
        }
    }

    fn login(&self, caller: &Caller, user: &str, password: &str) -> Result<Reply, Failure> {
        let now = self.0.options.clock.now();
        let site = &self.0.options.site;
        let is_right = user == site.user && password == self.state().password;
        if !is_right {
            self.act(|state| {
                state.outbox.push_back(Out::Log { step: "login", object: user.to_owned(), result: "InvalidLogin".to_owned() });
            });
            return Err(Failure::invalid_login());
        }
        let session = self.act(|state| {
            let key = state.keys.uuid().to_string();
            let session = Session::new(key.clone(), user, &caller.agent, &caller.address, now);
            let told = UserSession {
                key: key.clone(),
                user_name: user.to_owned(),
                full_name: user.to_owned(),
                login_time: now,
                last_active_time: now,
                locale: "en".to_owned(),
                message_locale: "en".to_owned(),
                is_extension_session: Some(false),
                ip_address: Some(caller.address.clone()),
                user_agent: Some(caller.agent.clone()),
                call_count: Some(0),
            };
            state.sessions.0.insert(key, session);
            touch_sessions(state);
            state.inventory.event(now, "UserLoginSessionEvent", format!("{user} logged in"), user, None);
            state.outbox.push_back(Out::Log { step: "login", object: user.to_owned(), result: "ok".to_owned() });
            told
        });
        let opened = Some(session.key.clone());
        Ok(Reply { response: Response::Login(session), opened })
    }

    /// What somebody without a session may read: the service's content, and that there is no session.
    fn read_unsigned(&self, call: &vsphere_wire::method::RetrievePropertiesEx) -> Result<Response, Failure> {
        let objects = call.specs.iter().flat_map(|spec| &spec.object_sets).map(|set| &set.object);
        let is_open = |object: &Reference| matches!(object.kind.as_str(), "ServiceInstance" | "SessionManager");
        let objects: Vec<&Reference> = objects.collect();
        if let Some(closed) = objects.iter().find(|object| !is_open(object)) {
            return Err(Failure::not_authenticated(closed));
        }
        let mut contents = self.look(None, |scope| collector::retrieve(scope, &call.specs))?;
        for content in contents.iter_mut().filter(|content| content.object.kind == "SessionManager") {
            let fault = Failure::not_authenticated(&content.object).localized();
            let asked = call.specs.iter().flat_map(|spec| &spec.property_sets).filter(|set| set.kind == "SessionManager");
            content.properties.clear();
            content.missing = asked
                .flat_map(|set| &set.paths)
                .map(|path| vsphere_wire::property::MissingProperty { path: path.clone(), fault: fault.clone() })
                .collect();
        }
        Ok(Response::RetrievePropertiesEx(Some(RetrieveResult { token: None, objects: contents })))
    }

    /// The methods that answer at once.
    #[allow(clippy::too_many_lines)] // one arm for each method
    fn answer(&self, signed: &Signed, request: Request, task_fault: Option<Failure>) -> Result<Response, Failure> {
        let key = signed.key.as_str();
        let task = |operation: Operation| self.start(&signed.user, operation, task_fault.clone());
        Ok(match request {
            Request::Logout(_) => {
                self.act(|state| {
                    state.sessions.0.remove(key);
                    touch_sessions(state);
                    state.outbox.push_back(Out::Log { step: "logout", object: signed.user.clone(), result: "ok".to_owned() });
                });
                Response::Logout(())
            }
            Request::RetrievePropertiesEx(call) => {
                let contents = self.look(Some(key), |scope| collector::retrieve(scope, &call.specs))?;
                let limit = call.options.max_objects.and_then(|limit| usize::try_from(limit).ok()).filter(|limit| *limit > 0);
                Response::RetrievePropertiesEx(Some(self.page(key, contents, limit.unwrap_or(PAGE))))
            }
            Request::ContinueRetrievePropertiesEx(call) => {
                let contents = self.state().sessions.get_mut(key).and_then(|session| session.pages.remove(&call.token));
                let contents = contents.ok_or_else(|| Failure::invalid_argument("token"))?;
                Response::ContinueRetrievePropertiesEx(self.page(key, contents, PAGE))
            }
            Request::CancelRetrievePropertiesEx(call) => {
                let pages = self.state().sessions.get_mut(key).and_then(|session| session.pages.remove(&call.token));
                pages.ok_or_else(|| Failure::invalid_argument("token"))?;
                Response::CancelRetrievePropertiesEx(())
            }
            Request::CreatePropertyCollector(_) => Response::CreatePropertyCollector(self.own(key, "PropertyCollector", |session, id| {
                session.collectors.insert(id, Collector::default());
            })),
            Request::DestroyPropertyCollector(call) => {
                if call.this.id == DEFAULT_COLLECTOR {
                    return Err(Failure::not_supported());
                }
                self.change_session(key, |session| session.collectors.remove(&call.this.id));
                Response::DestroyPropertyCollector(())
            }
            Request::CreateFilter(call) => {
                let filter = self.look(Some(key), |scope| Filter::new(scope, call.spec))?;
                let collector = call.this.id;
                Response::CreateFilter(self.own(key, "PropertyFilter", move |session, id| {
                    if let Some(collector) = session.collectors.get_mut(&collector) {
                        collector.filters.insert(id, filter);
                    }
                }))
            }
            Request::DestroyPropertyFilter(call) => {
                self.change_session(key, |session| session.collector_of(&call.this).map(|collector| collector.remove(&call.this.id)));
                Response::DestroyPropertyFilter(())
            }
            Request::CancelWaitForUpdates(call) => {
                self.change_session(key, |session| session.collectors.get_mut(&call.this.id).map(|collector| collector.wait += 1));
                Response::CancelWaitForUpdates(())
            }
            Request::CreateContainerView(call) => {
                if self.state().inventory.get(&call.container).is_none() {
                    return Err(Failure::not_found(&call.container));
                }
                if call.kinds.iter().any(|kind| !is_known_type(kind)) {
                    return Err(Failure::invalid_argument("type"));
                }
                let view = View::Container { container: call.container, kinds: call.kinds, is_recursive: call.is_recursive };
                Response::CreateContainerView(self.own(key, "ContainerView", |session, id| {
                    session.views.insert(id, view);
                }))
            }
            Request::CreateListView(call) => Response::CreateListView(self.own(key, "ListView", |session, id| {
                session.views.insert(id, View::List(call.objects));
            })),
            Request::ModifyListView(call) => {
                let unknown =
                    self.look(Some(key), |scope| call.added.iter().filter(|object| !scope.exists(object)).cloned().collect::<Vec<_>>());
                let added: Vec<Reference> = call.added.into_iter().filter(|object| !unknown.contains(object)).collect();
                self.change_list(key, &call.this, |objects| {
                    objects.retain(|object| !call.removed.contains(object));
                    for object in added {
                        if !objects.contains(&object) {
                            objects.push(object);
                        }
                    }
                })?;
                Response::ModifyListView(unknown)
            }
            Request::DestroyView(call) => {
                self.change_session(key, |session| session.views.remove(&call.this.id));
                Response::DestroyView(())
            }
            Request::FindByInventoryPath(call) => Response::FindByInventoryPath(self.state().inventory.find_path(&call.inventory_path)),
            Request::FindByUuid(call) => {
                let found = find(&self.state().inventory, call.datacenter.as_ref(), &call.uuid, call.is_vm_search, call.is_instance_uuid);
                Response::FindByUuid(found.into_iter().next())
            }
            Request::FindAllByUuid(call) => Response::FindAllByUuid(find(
                &self.state().inventory,
                call.datacenter.as_ref(),
                &call.uuid,
                call.is_vm_search,
                call.is_instance_uuid,
            )),
            Request::CreateFolder(call) => {
                let made = self.act(|state| {
                    let made = create_folder(&mut state.inventory, &call.this, &call.name)?;
                    let object = format!("{} {}", made.id, call.name);
                    state.outbox.push_back(Out::Log { step: "create-folder", object, result: "ok".to_owned() });
                    Ok(made)
                })?;
                Response::CreateFolder(made)
            }
            Request::CloneVm(call) => {
                clone::check(&self.state().inventory, &call.this, &call.folder, &call.name, &call.spec)?;
                let spec = Box::new(call.spec);
                Response::CloneVm(task(Operation::Clone { source: call.this, folder: call.folder, name: call.name, spec }))
            }
            Request::ReconfigureVm(call) => {
                Response::ReconfigureVm(task(Operation::Reconfigure { vm: call.this, spec: Box::new(call.spec) }))
            }
            Request::PowerOnVm(call) => Response::PowerOnVm(task(Operation::PowerOn { vm: call.this })),
            Request::PowerOffVm(call) => Response::PowerOffVm(task(Operation::PowerOff { vm: call.this })),
            Request::ShutdownGuest(call) => {
                self.shut_down(&call.this)?;
                Response::ShutdownGuest(())
            }
            Request::Destroy(call) => Response::Destroy(task(Operation::Destroy { entity: call.this })),
            Request::Rename(call) => Response::Rename(task(Operation::Rename { entity: call.this, name: call.new_name })),
            Request::CreateSnapshot(call) => Response::CreateSnapshot(task(Operation::Snapshot {
                vm: call.this,
                name: call.name,
                description: call.description.unwrap_or_default(),
            })),
            Request::MarkAsTemplate(call) => {
                self.mark(&call.this, None)?;
                Response::MarkAsTemplate(())
            }
            Request::MarkAsVirtualMachine(call) => {
                self.mark(&call.this, Some(&call.pool))?;
                Response::MarkAsVirtualMachine(())
            }
            Request::CancelTask(call) => {
                self.cancel(&call.this)?;
                Response::CancelTask(())
            }
            Request::Other(element) => self.other(signed, &element)?,
            // Answered before it comes here.
            Request::RetrieveServiceContent(_) | Request::CurrentTime(_) | Request::Login(_) | Request::WaitForUpdatesEx(_) => {
                return Err(Failure::invalid_request("the method cannot be called here"));
            }
        })
    }

    /// Methods that other clients need and ours does not.
    fn other(&self, signed: &Signed, element: &Element) -> Result<Response, Failure> {
        let this = element.child("_this").and_then(|this| Reference::read(this).ok());
        let this = this.ok_or_else(|| Failure::invalid_request("the request has no _this"))?;
        let returning = |reference: &Reference| {
            let mut value = Element::vim("returnval");
            reference.write(&mut value);
            Response::Other(Element::vim(format!("{}Response", element.local())).with_child(value))
        };
        match element.local() {
            "SearchDatastore_Task" => {
                let directory = element.child_text("datastorePath").unwrap_or_default().to_owned();
                let pattern = element.child("searchSpec").and_then(|spec| spec.child_text("matchPattern")).unwrap_or_default().to_owned();
                Ok(returning(&self.start(&signed.user, Operation::Search { browser: this, directory, pattern }, None)))
            }
            "ResetListView" => {
                let objects: Vec<Reference> = element.children_named("obj").filter_map(|object| Reference::read(object).ok()).collect();
                self.change_list(&signed.key, &this, |shown| *shown = objects)?;
                Ok(Response::Other(Element::vim("ResetListViewResponse")))
            }
            other => Err(Failure::not_implemented(other)),
        }
    }

    fn page(&self, key: &str, mut contents: Vec<vsphere_wire::property::ObjectContent>, limit: usize) -> RetrieveResult {
        if contents.len() <= limit {
            return RetrieveResult { token: None, objects: contents };
        }
        let rest = contents.split_off(limit);
        let mut state = self.state();
        let token = state.keys.uuid().to_string();
        if let Some(session) = state.sessions.get_mut(key) {
            session.pages.insert(token.clone(), rest);
        }
        RetrieveResult { token: Some(token), objects: contents }
    }

    /// Makes something that belongs to the session.
    fn own(&self, key: &str, kind: &str, make: impl FnOnce(&mut Session, String)) -> Reference {
        self.act(|state| {
            let id = format!("session[{key}]{}", state.keys.uuid());
            if let Some(session) = state.sessions.get_mut(key) {
                make(session, id.clone());
            }
            touch_sessions(state);
            Reference::new(kind, id)
        })
    }

    fn change_session<R>(&self, key: &str, change: impl FnOnce(&mut Session) -> R) -> Option<R> {
        self.act(|state| {
            let result = state.sessions.get_mut(key).map(change);
            touch_sessions(state);
            result
        })
    }

    fn change_list(&self, key: &str, view: &Reference, change: impl FnOnce(&mut Vec<Reference>)) -> Result<(), Failure> {
        let changed = self.change_session(key, |session| match session.views.get_mut(&view.id) {
            Some(View::List(objects)) => {
                change(objects);
                true
            }
            _ => false,
        });
        if changed == Some(true) { Ok(()) } else { Err(Failure::not_found(view)) }
    }

    fn mark(&self, reference: &Reference, pool: Option<&Reference>) -> Result<(), Failure> {
        self.act(|state| {
            let inventory = &mut state.inventory;
            if let Some(pool) = pool.filter(|pool| inventory.get(pool).is_none()) {
                return Err(Failure::not_found(pool));
            }
            let vm = inventory.vm(reference).ok_or_else(|| Failure::not_found(reference))?;
            if vm.is_template != pool.is_some() {
                return Err(Failure::not_supported());
            }
            if vm.is_powered_on {
                return Err(Failure::power_state("poweredOff", "poweredOn"));
            }
            inventory.touch_around(reference);
            if let Some(vm) = inventory.change_vm(reference) {
                vm.is_template = pool.is_none();
                vm.pool = pool.cloned();
            }
            inventory.touch_around(reference);
            let step = if pool.is_none() { "mark-as-template" } else { "mark-as-vm" };
            let object = super::operation::label(inventory, reference);
            state.outbox.push_back(Out::Log { step, object, result: "ok".to_owned() });
            Ok(())
        })
    }

    /// The guest switches off when it is done; only with tools it hears of it.
    fn shut_down(&self, reference: &Reference) -> Result<(), Failure> {
        {
            let state = self.state();
            let vm = state.inventory.vm(reference).ok_or_else(|| Failure::not_found(reference))?;
            if !vm.is_powered_on {
                return Err(Failure::power_state("poweredOn", "poweredOff"));
            }
            if vm.tools.is_none() {
                return Err(Failure::tools_unavailable());
            }
        }
        let (vcenter, reference) = (self.clone(), reference.clone());
        tokio::spawn(async move {
            let ended = vcenter.0.ended.clone();
            let work = async {
                vcenter.0.options.clock.sleep(vcenter.0.options.latency.power_off).await;
                vcenter.act(|state| {
                    if let Ok(done) = super::operation::power_off(&mut state.inventory, &reference) {
                        state.outbox.push_back(Out::Log { step: "shut-down", object: done.object, result: "ok".to_owned() });
                        state.outbox.extend(done.guests.into_iter().map(Out::Guest));
                    }
                });
            };
            ended.run_until_cancelled(work).await;
        });
        Ok(())
    }

    /// Waits until one of the collector's filters has something to tell.
    async fn wait(&self, signed: &Signed, call: &vsphere_wire::method::WaitForUpdatesEx) -> Result<Option<UpdateSet>, Failure> {
        let options = call.options.clone().unwrap_or_default();
        let longest = options.max_wait_seconds.map_or(LONGEST_WAIT, |seconds| Duration::from_secs(u64::try_from(seconds).unwrap_or(0)));
        let mut changes = self.0.changes.subscribe();
        let number = {
            let mut state = self.state();
            let collector = state.sessions.get_mut(&signed.key).and_then(|session| session.collectors.get_mut(&call.this.id));
            let collector = collector.ok_or_else(|| Failure::not_found(&call.this))?;
            if let Some(again) = collector.begin(call.version.as_deref().unwrap_or_default())? {
                return Ok(Some(again));
            }
            let number = collector.wait;
            // Whoever waited before on this collector hears that it was cancelled.
            self.0.changes.send_modify(|_| {});
            number
        };
        let _waiting = Waiting::new(self, &signed.key);
        let deadline = self.0.options.clock.sleep(longest);
        tokio::pin!(deadline);
        loop {
            changes.mark_unchanged();
            if let Some(set) = self.poll(signed, &call.this, number, options.max_object_updates)? {
                return Ok(Some(set));
            }
            tokio::select! {
                biased;
                changed = changes.changed() => if changed.is_err() { return Err(Failure::request_canceled()) },
                () = &mut deadline => return Ok(None),
                () = self.0.ended.cancelled() => return Err(Failure::request_canceled()),
            }
        }
    }

    fn poll(&self, signed: &Signed, on: &Reference, number: u64, limit: Option<i32>) -> Result<Option<UpdateSet>, Failure> {
        let now = self.0.options.clock.now();
        let mut state = self.state();
        let Some(session) = state.sessions.get_mut(&signed.key) else { return Err(Failure::not_authenticated(on)) };
        let Some(collector) = session.collectors.get_mut(&on.id) else { return Err(Failure::not_found(on)) };
        if collector.wait != number {
            return Err(Failure::request_canceled());
        }
        // Taken out while it looks at the rest of its own session.
        let mut taken = std::mem::take(collector);
        let State { inventory, sessions, .. } = &mut *state;
        let scope = Scope { inventory, sessions, session: sessions.get(&signed.key), now };
        let result = taken.poll(scope, limit);
        if let Some(collector) = state.sessions.get_mut(&signed.key).and_then(|session| session.collectors.get_mut(&on.id)) {
            *collector = taken;
        }
        result
    }
}

/// Marks a session as waiting for as long as it lives.
struct Waiting<'a> {
    vcenter: &'a VCenter,
    key: &'a str,
}

impl<'a> Waiting<'a> {
    fn new(vcenter: &'a VCenter, key: &'a str) -> Self {
        if let Some(session) = vcenter.state().sessions.get_mut(key) {
            session.waits += 1;
        }
        Self { vcenter, key }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let now = self.vcenter.0.options.clock.now();
        if let Some(session) = self.vcenter.state().sessions.get_mut(self.key) {
            session.waits -= 1;
            session.last_active = now;
        }
    }
}

/// Lets collectors look again: what belongs to sessions changed.
fn touch_sessions(state: &mut State) {
    let root = state.inventory.root.clone();
    state.inventory.change(&root);
}

fn user_of(state: &State, key: &str) -> String {
    state.sessions.get(key).map(|session| session.user.clone()).unwrap_or_else(|| "idle for too long".to_owned())
}

fn find(
    inventory: &Inventory,
    datacenter: Option<&Reference>,
    uuid: &str,
    is_vm_search: bool,
    is_instance: Option<bool>,
) -> Vec<Reference> {
    let is_here = |reference: &Reference| datacenter.is_none_or(|wanted| inventory.datacenter_of(reference).as_ref() == Some(wanted));
    let fits = |object: &&super::inventory::Object| {
        let own = match &object.kind {
            Kind::Vm(vm) if is_vm_search && is_instance == Some(true) => &vm.instance_uuid,
            Kind::Vm(vm) if is_vm_search => &vm.bios_uuid,
            Kind::Host { uuid } if !is_vm_search => uuid,
            _ => return false,
        };
        own.eq_ignore_ascii_case(uuid) && is_here(&object.reference)
    };
    inventory.objects().filter(fits).map(|object| object.reference.clone()).collect()
}
